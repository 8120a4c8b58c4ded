//! Unpacks `.tgz` into memory, as much of it as is allowed.

use std::cell::Cell;
use std::io::Read;

use flate2::read::GzDecoder;
use scheduler_core::port::deploy::DeployError;
use tar::{Archive, EntryType};

use super::SourceRules;
use super::bundle::Bundle;
use crate::chart::invalid;

/// Entries of an archive that are looked at: a repository has many that are not the chart's.
const MAX_ENTRIES: usize = 50_000;
/// Bytes that an archive may unpack to for each byte of the chart that is allowed: a repository has more than the chart.
const MOST_BESIDE: u64 = 32;

/// The files of the chart in an archive: in its only top folder, or in `folder` of that.
pub(super) fn unpack(bytes: &[u8], folder: Option<&str>, rules: &SourceRules) -> Result<Bundle, DeployError> {
    let broken = |error: std::io::Error| invalid("chart", format!("the archive cannot be read: {error}"));
    let bomb = |most: u64| invalid("chart", format!("unpacks to more than {most} bytes"));
    // One byte more than is allowed tells a bomb.
    let most = rules.max_chart_bytes as u64 * if folder.is_some() { MOST_BESIDE } else { 2 };
    let left = Cell::new(most + 1);
    let mut archive = Archive::new(Counted {
        inner: GzDecoder::new(bytes),
        left: &left,
    });
    let mut bundle = Bundle::default();
    let mut entries = 0;
    for entry in archive.entries().map_err(broken)? {
        // Where it is cut off it looks like a broken one.
        let mut entry = entry.map_err(|error| {
            if left.get() == 0 {
                bomb(most)
            } else {
                broken(error)
            }
        })?;
        entries += 1;
        if entries > MAX_ENTRIES {
            return Err(invalid(
                "chart",
                format!("the archive has more than {MAX_ENTRIES} entries"),
            ));
        }
        let path = String::from_utf8(entry.path_bytes().into_owned())
            .map_err(|_| invalid("chart", "a name in the archive is not UTF-8"))?;
        let kind = entry.header().entry_type();
        if matches!(kind, EntryType::XGlobalHeader | EntryType::XHeader) {
            continue;
        }
        if path.starts_with('/') || path.split('/').any(|part| part == "..") {
            return Err(invalid(
                "chart",
                format!("{path:?} in the archive leads out of it"),
            ));
        }
        let path = path.trim_start_matches("./").trim_end_matches('/');
        let Some(name) = name_within(path, folder) else {
            continue;
        };
        match kind {
            EntryType::Directory => continue,
            EntryType::Regular | EntryType::Continuous => (),
            EntryType::Symlink | EntryType::Link => {
                return Err(invalid(
                    "chart",
                    format!("{name} in the archive is a link; a chart has files only"),
                ));
            }
            other => {
                return Err(invalid(
                    "chart",
                    format!("{name} in the archive is no file ({other:?})"),
                ));
            }
        }
        let room = bundle.room(rules) as u64;
        let mut content = Vec::new();
        (&mut entry)
            .take(room + 1)
            .read_to_end(&mut content)
            .map_err(broken)?;
        if left.get() == 0 {
            return Err(bomb(most));
        }
        bundle.add(name, content, rules)?;
    }
    if left.get() == 0 {
        return Err(bomb(most));
    }
    bundle.check()
}

/// Reads as many bytes as are left, and then none.
struct Counted<'a, R> {
    inner: R,
    left: &'a Cell<u64>,
}

impl<R: Read> Read for Counted<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let most = usize::try_from(self.left.get())
            .unwrap_or(usize::MAX)
            .min(buffer.len());
        let read = self.inner.read(&mut buffer[..most])?;
        self.left.set(self.left.get() - read as u64);
        Ok(read)
    }
}

/// The name of an entry within the chart, if it is of it.
fn name_within<'a>(path: &'a str, folder: Option<&str>) -> Option<&'a str> {
    let (_, rest) = path.split_once('/')?;
    match folder.map(|folder| folder.trim_matches('/')) {
        None | Some("") => Some(rest),
        Some(folder) => rest.strip_prefix(folder)?.strip_prefix('/'),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use flate2::Compression;
    use flate2::write::GzEncoder;
    use tar::{Builder, Header};

    use super::*;

    const CHART: (&str, &[u8]) = ("ocr/Chart.yaml", b"name: ocr\n");

    fn packed(fill: impl FnOnce(&mut Builder<GzEncoder<Vec<u8>>>)) -> Vec<u8> {
        let mut builder = Builder::new(GzEncoder::new(Vec::new(), Compression::fast()));
        add(&mut builder, CHART.0, CHART.1);
        fill(&mut builder);
        builder.into_inner().unwrap().finish().unwrap()
    }

    /// The tar crate refuses to write names that lead out; a hostile writer does not.
    fn add(builder: &mut Builder<GzEncoder<Vec<u8>>>, name: &str, content: &[u8]) {
        let mut header = Header::new_gnu();
        header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
        header.set_entry_type(EntryType::Regular);
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        header.set_cksum();
        builder.append(&header, content).unwrap();
    }

    fn refused(archive: &[u8]) -> String {
        unpack(archive, None, &small()).unwrap_err().to_string()
    }

    fn small() -> SourceRules {
        SourceRules {
            max_chart_bytes: 10_000,
            max_files: 20,
            ..SourceRules::default()
        }
    }

    #[test]
    fn a_chart_is_found_below_the_top_or_in_its_folder() {
        let archive = packed(|builder| {
            add(builder, "ocr/templates/a.yaml", b"a");
            add(builder, "ocr/deploy/x/Chart.yaml", b"name: x\n");
        });
        unpack(&archive, None, &small()).unwrap();
        let inner = unpack(&archive, Some("deploy/x"), &small()).unwrap();
        assert_ne!(inner.digest(), unpack(&archive, None, &small()).unwrap().digest());
        let problem = unpack(&archive, Some("deploy/y"), &small()).unwrap_err();
        assert!(problem.to_string().contains("no Chart.yaml"), "{problem}");
    }

    #[test]
    fn names_that_lead_out_are_refused() {
        for name in [
            "../evil",
            "ocr/../../evil",
            "/etc/evil",
            "ocr/templates/../../../evil",
        ] {
            let problem = refused(&packed(|builder| add(builder, name, b"x")));
            assert!(problem.contains("leads out"), "{name}: {problem}");
        }
        let problem = refused(&packed(|builder| add(builder, "ocr//evil", b"x")));
        assert!(problem.contains("no name of a file"), "{problem}");
    }

    #[test]
    fn links_and_devices_are_refused() {
        for (kind, word) in [
            (EntryType::Symlink, "is a link"),
            (EntryType::Link, "is a link"),
            (EntryType::Char, "is no file"),
            (EntryType::Fifo, "is no file"),
        ] {
            let problem = refused(&packed(|builder| {
                let mut header = Header::new_gnu();
                header.set_path("ocr/templates/evil.yaml").unwrap();
                header.set_entry_type(kind);
                header.set_link_name("/etc/passwd").unwrap();
                header.set_size(0);
                header.set_cksum();
                builder.append(&header, &b""[..]).unwrap();
            }));
            assert!(problem.contains(word), "{kind:?}: {problem}");
        }
    }

    #[test]
    fn bombs_are_not_unpacked() {
        let zeros = vec![0; 5_000_000];
        let archive = packed(|builder| add(builder, "ocr/big", &zeros));
        assert!(archive.len() < 50_000);
        assert!(refused(&archive).contains("more than 10000 bytes"));
        // Beside the chart, where its files are not even looked at.
        let archive = packed(|builder| add(builder, "big", &zeros));
        assert!(
            refused(&archive).contains("unpacks to more than"),
            "{}",
            refused(&archive)
        );
        let archive = packed(|builder| {
            for number in 0..30 {
                add(builder, &format!("ocr/{number}"), b"");
            }
        });
        assert!(refused(&archive).contains("more than 20 files"));
    }

    #[test]
    fn what_is_no_archive_or_is_cut_off_is_refused() {
        assert!(refused(b"<html>not found</html>").contains("cannot be read"));
        let archive = packed(|builder| add(builder, "ocr/a", &[7; 4000]));
        let problem = refused(&archive[..archive.len() / 2]);
        assert!(problem.contains("cannot be read"), "{problem}");
        let mut empty = GzEncoder::new(Vec::new(), Compression::fast());
        empty.write_all(&[0; 1024]).unwrap();
        assert!(refused(&empty.finish().unwrap()).contains("no Chart.yaml"));
    }

    #[test]
    fn a_file_that_comes_twice_is_refused() {
        let archive = packed(|builder| add(builder, CHART.0, b"name: other\n"));
        assert!(refused(&archive).contains("Chart.yaml twice"));
    }
}
