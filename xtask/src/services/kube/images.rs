//! Images of containers, made of files of this machine: no engine, no registry.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::super::cache::{make, write};
use crate::Failed;
use crate::run::output;

/// What an image has: busybox with its applets, and what is added.
#[derive(Clone, Debug)]
pub(crate) struct Image {
    name: String,
    command: Vec<String>,
    /// Files and directories of this machine, and where they lie in the image.
    added: Vec<(PathBuf, String)>,
    /// Applets of busybox that are not there, since the real program is.
    left_out: Vec<String>,
}

impl Image {
    /// One that runs this command.
    pub(crate) fn new(name: &str, command: &[&str]) -> Self {
        Self {
            name: name.to_owned(),
            command: command.iter().map(|&word| word.to_owned()).collect(),
            added: Vec::new(),
            left_out: Vec::new(),
        }
    }

    /// With a file or directory, and the libraries that a program is linked to.
    pub(crate) fn with(mut self, from: impl Into<PathBuf>, to: &str) -> Self {
        self.added.push((from.into(), to.to_owned()));
        self
    }

    /// Without an applet of busybox.
    pub(crate) fn without(mut self, applet: &str) -> Self {
        self.left_out.push(applet.to_owned());
        self
    }
}

/// Writes it as an archive that containerd takes, and gives the path.
pub(super) fn pack(run: &Path, image: &Image) -> Result<PathBuf, Failed> {
    let place = run.join("kubelet-image");
    let _ = fs::remove_dir_all(&place);
    let root = place.join("root");
    lay_out(&root, image)?;
    let layer = place.join("layer.tar");
    let mut tar = Command::new("tar");
    tar.args([
        "--create",
        "--numeric-owner",
        "--owner=0",
        "--group=0",
        "--sort=name",
    ])
    .args(["--mtime=@0", "--file"])
    .arg(&layer)
    .arg("--directory")
    .arg(&root)
    .arg(".");
    output(tar)?;
    let mut sum = Command::new("sha256sum");
    sum.arg(&layer);
    let sum = output(sum)?;
    let sum = sum.split_whitespace().next().unwrap_or_default();
    write(&place.join("config.json"), &configuration(image, sum))?;
    let manifest = format!(
        "[{{\"Config\": \"config.json\", \"RepoTags\": [\"{}\"], \"Layers\": [\"layer.tar\"]}}]",
        image.name
    );
    write(&place.join("manifest.json"), &manifest)?;
    let archive = run.join("kubelet-image.tar");
    let mut tar = Command::new("tar");
    tar.args(["--create", "--file"])
        .arg(&archive)
        .arg("--directory")
        .arg(&place)
        .args(["manifest.json", "config.json", "layer.tar"]);
    output(tar)?;
    fs::remove_dir_all(&place).map_err(|error| format!("{}: {error}", place.display()))?;
    Ok(archive)
}

fn configuration(image: &Image, layer: &str) -> String {
    let command: Vec<String> = image.command.iter().map(|word| format!("\"{word}\"")).collect();
    let machine = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    format!(
        "{{\"architecture\": \"{machine}\", \"os\": \"linux\", \
         \"config\": {{\"Env\": [\"PATH=/bin:/usr/bin\"], \"Entrypoint\": [{}]}}, \
         \"rootfs\": {{\"type\": \"layers\", \"diff_ids\": [\"sha256:{layer}\"]}}}}",
        command.join(", ")
    )
}

fn lay_out(root: &Path, image: &Image) -> Result<(), Failed> {
    use std::os::unix::fs::PermissionsExt as _;
    for directory in ["bin", "etc", "proc", "sys", "dev", "run", "var", "tmp"] {
        make(&root.join(directory))?;
    }
    fs::set_permissions(root.join("tmp"), fs::Permissions::from_mode(0o1777))
        .map_err(|error| format!("/tmp of an image: {error}"))?;
    write(
        &root.join("etc/passwd"),
        "root:x:0:0::/root:/bin/sh\nnonroot:x:65532:65532::/:/bin/sh\n",
    )?;
    write(&root.join("etc/group"), "root:x:0:\nnonroot:x:65532:\n")?;
    let busybox = busybox()?;
    copy(&busybox, &root.join("bin/busybox"))?;
    let mut list = Command::new(&busybox);
    list.arg("--list");
    let is_wanted = |applet: &str| applet != "busybox" && !image.left_out.iter().any(|left| left == applet);
    for applet in output(list)?.lines().filter(|applet| is_wanted(applet)) {
        std::os::unix::fs::symlink("/bin/busybox", root.join("bin").join(applet))
            .map_err(|error| format!("{applet} of an image: {error}"))?;
    }
    for (from, to) in &image.added {
        let inside = root.join(to.trim_start_matches('/'));
        copy(from, &inside)?;
        for library in libraries(from) {
            copy(Path::new(&library), &root.join(library.trim_start_matches('/')))?;
        }
    }
    Ok(())
}

/// Whether distributions of this machine have put it here.
fn busybox() -> Result<PathBuf, Failed> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut places = std::env::split_paths(&path).map(|directory| directory.join("busybox"));
    places
        .find(|place| place.is_file())
        .ok_or_else(|| "there is no busybox".to_owned())
}

/// Copies a file, what a link leads to, or a directory; what was there is replaced.
fn copy(from: &Path, to: &Path) -> Result<(), Failed> {
    if let Some(parent) = to.parent() {
        make(parent)?;
    }
    if !from.is_dir() {
        let _ = fs::remove_file(to);
    }
    let mut copy = Command::new("cp");
    copy.args(["--recursive", "--dereference", "--no-target-directory"])
        .args([from, to]);
    output(copy).map(drop)
}

/// What a program is linked to, by the paths at which it looks for it.
fn libraries(program: &Path) -> BTreeSet<String> {
    let listed = Command::new("ldd").arg(program).output();
    let listed = listed.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
    named(&listed.unwrap_or_default())
}

fn named(listed: &str) -> BTreeSet<String> {
    let paths = listed.lines().filter_map(|line| {
        let (path, _) = line.rsplit_once(" (0x")?;
        let path = path.rsplit_once("=> ").map_or(path, |(_, path)| path).trim();
        path.starts_with('/').then(|| path.to_owned())
    });
    paths.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_are_those_with_a_path() {
        let listed = "\tlinux-vdso.so.1 (0x00007ffd)\n\tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007f)\n\
                      \t/lib64/ld-linux-x86-64.so.2 (0x00007f)\n\tlibgone.so => not found\n";
        let found = Vec::from_iter(named(listed));
        assert_eq!(
            found,
            ["/lib/x86_64-linux-gnu/libc.so.6", "/lib64/ld-linux-x86-64.so.2"]
        );
        assert!(named("\tnot a dynamic executable\n").is_empty());
    }

    #[test]
    fn an_image_says_what_it_runs() {
        let image = Image::new("localhost/x:1", &["/bin/x", "--flag"]);
        let configuration = configuration(&image, "ab");
        assert!(
            configuration.contains("\"Entrypoint\": [\"/bin/x\", \"--flag\"]"),
            "{configuration}"
        );
        assert!(
            configuration.contains("\"diff_ids\": [\"sha256:ab\"]"),
            "{configuration}"
        );
    }
}
