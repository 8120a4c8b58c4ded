//! This machine as a node on which pods really run: a kubelet over containerd and runc. Root only.
//!
//! Pods are on a bridge of their own, with this machine at its other end ([`address`]): who is to be reached by them listens there. They reach the
//! API server where every pod looks for it, at the address of the service `kubernetes`. Names of the cluster are not resolved for them, its other
//! services have no addresses, and nothing outside of the machine is reached.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::super::cache::{self, make, write};
use super::super::process::{Record, processes, signal};
use super::images::{self, Image};
use super::keys;
use crate::run::{output, run as execute};
use crate::{Failed, tools};

/// Where distributions put the plugins of the network.
const PLUGINS: [&str; 2] = ["/usr/lib/cni", "/opt/cni/bin"];
/// What holds the network of a pod, and does nothing.
const PAUSE: &str = "localhost/pause:1";
const NAMESPACE: &str = "k8s.io";
/// The first address of the cluster's services, which is that of its API.
const API: &str = "10.96.0.1";

/// The names of this node's things, which other nodes on this machine must not have: by the kubelet's port.
#[derive(Clone, Debug)]
struct Node {
    run: PathBuf,
    port: u16,
}

/// This machine's address on the bridge.
pub(crate) fn address(run: &Path) -> Option<String> {
    Some(Node::of(run)?.gateway())
}

/// Refuses where it cannot be done.
pub(crate) fn check() -> Result<(), Failed> {
    if tools::is_root() {
        Ok(())
    } else {
        Err("a node that runs pods needs root".to_owned())
    }
}

impl Node {
    fn of(run: &Path) -> Option<Self> {
        let kubelet = Record::load(run, "kubelet")?;
        Some(Self {
            run: run.to_owned(),
            port: kubelet.port(),
        })
    }

    fn bridge(&self) -> String {
        format!("wsnode{}", self.port)
    }

    fn net(&self) -> String {
        format!("10.210.{}", self.port % 250)
    }

    fn gateway(&self) -> String {
        format!("{}.1", self.net())
    }

    /// All that a pod uses is counted below it.
    fn group(&self) -> String {
        format!("workload-scheduler-{}", self.port)
    }

    fn socket(&self) -> PathBuf {
        self.run.join("containerd.sock")
    }

    /// Where runc keeps what it knows of containers.
    fn containers(&self) -> PathBuf {
        self.run.join("containerd-runc")
    }

    /// Its control groups, one for each hierarchy, or the one.
    fn groups(&self) -> Vec<PathBuf> {
        let root = Path::new("/sys/fs/cgroup");
        if root.join("cgroup.controllers").exists() {
            return vec![root.join(self.group())];
        }
        let hierarchies = fs::read_dir(root).into_iter().flatten().flatten();
        hierarchies
            .map(|entry| entry.path())
            // Those that are called twice are links.
            .filter(|path| path.is_dir() && !path.is_symlink())
            .map(|path| path.join(self.group()))
            .collect()
    }

    fn network(&self) -> Result<(), Failed> {
        let bridge = self.bridge();
        if !Path::new("/sys/class/net").join(&bridge).exists() {
            execute(words(&["ip", "link", "add", &bridge, "type", "bridge"]))?;
        }
        let address = format!("{}/24", self.gateway());
        execute(words(&["ip", "address", "replace", &address, "dev", &bridge]))?;
        execute(words(&["ip", "link", "set", &bridge, "up"]))?;
        let directory = self.run.join("containerd-network");
        make(&directory)?;
        let ipam = self.run.join("containerd-addresses");
        let configuration = format!(
            "{{\"cniVersion\": \"0.4.0\", \"name\": \"{bridge}\", \"plugins\": [\
             {{\"type\": \"bridge\", \"bridge\": \"{bridge}\", \"isGateway\": true, \"ipMasq\": false, \"hairpinMode\": true, \
             \"ipam\": {{\"type\": \"host-local\", \"dataDir\": \"{}\", \"ranges\": [[{{\"subnet\": \"{}.0/24\"}}]], \
             \"routes\": [{{\"dst\": \"0.0.0.0/0\"}}]}}}}]}}\n",
            ipam.display(),
            self.net()
        );
        write(&directory.join("10-bridge.conflist"), &configuration)
    }

    /// What a pod says to the service `kubernetes` comes to the API server, which listens on loopback alone.
    fn lead_to_api(&self, port: u16) -> Result<(), Failed> {
        self.forget_api();
        let local = format!("/proc/sys/net/ipv4/conf/{}/route_localnet", self.bridge());
        fs::write(&local, "1").map_err(|error| format!("{local}: {error}"))?;
        let to = format!("127.0.0.1:{port}");
        let rule = [
            "-i",
            &self.bridge(),
            "-d",
            API,
            "-p",
            "tcp",
            "--dport",
            "443",
            "-j",
            "DNAT",
            "--to-destination",
            &to,
        ];
        execute(words(
            &[&["iptables", "-w", "-t", "nat", "-A", "PREROUTING"], &rule[..]].concat(),
        ))
    }

    fn forget_api(&self) {
        let listed = output(words(&["iptables", "-w", "-t", "nat", "-S", "PREROUTING"]));
        let bridge = format!(" -i {} ", self.bridge());
        for rule in listed
            .unwrap_or_default()
            .lines()
            .filter(|rule| rule.contains(&bridge))
        {
            let rule: Vec<&str> = rule.split(' ').skip(1).collect();
            let _ = words(&[&["iptables", "-w", "-t", "nat", "-D"], &rule[..]].concat()).status();
        }
    }

    fn containerd(&self, streaming: u16) -> Result<String, Failed> {
        let plugins = PLUGINS
            .iter()
            .find(|folder| Path::new(folder).join("bridge").exists());
        let plugins = plugins
            .ok_or("no plugins of the network (bridge, host-local) in /usr/lib/cni or /opt/cni/bin")?;
        let path = |name: &str| self.run.join(name).display().to_string();
        Ok(format!(
            "version = 2\n\
             root = \"{root}\"\n\
             state = \"{state}\"\n\
             disabled_plugins = [\"io.containerd.internal.v1.tracing\", \"io.containerd.tracing.processor.v1.otlp\", \
             \"io.containerd.snapshotter.v1.devmapper\", \"io.containerd.snapshotter.v1.zfs\", \
             \"io.containerd.snapshotter.v1.aufs\", \"io.containerd.snapshotter.v1.btrfs\"]\n\
             [grpc]\n\
             address = \"{socket}\"\n\
             [plugins.\"io.containerd.internal.v1.opt\"]\n\
             path = \"{opt}\"\n\
             [plugins.\"io.containerd.grpc.v1.cri\"]\n\
             sandbox_image = \"{PAUSE}\"\n\
             # Who may not lower it, as root without CAP_SYS_RESOURCE, could run nothing otherwise.\n\
             restrict_oom_score_adj = true\n\
             netns_mounts_under_state_dir = true\n\
             stream_server_address = \"127.0.0.1\"\n\
             stream_server_port = \"{streaming}\"\n\
             [plugins.\"io.containerd.grpc.v1.cri\".containerd]\n\
             snapshotter = \"overlayfs\"\n\
             [plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.runc]\n\
             runtime_type = \"io.containerd.runc.v2\"\n\
             [plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.runc.options]\n\
             Root = \"{containers}\"\n\
             [plugins.\"io.containerd.grpc.v1.cri\".cni]\n\
             bin_dir = \"{plugins}\"\n\
             conf_dir = \"{network}\"\n",
            root = path("containerd-root"),
            state = path("containerd-state"),
            socket = self.socket().display(),
            opt = path("containerd-opt"),
            containers = self.containers().display(),
            network = path("containerd-network"),
        ))
    }

    fn kubelet(&self, health: u16) -> String {
        format!(
            "apiVersion: kubelet.config.k8s.io/v1beta1\n\
             kind: KubeletConfiguration\n\
             address: 127.0.0.1\n\
             port: {port}\n\
             healthzBindAddress: 127.0.0.1\n\
             healthzPort: {health}\n\
             authentication: {{anonymous: {{enabled: false}}, webhook: {{enabled: true}}, x509: {{clientCAFile: \"{authority}\"}}}}\n\
             authorization: {{mode: Webhook}}\n\
             containerRuntimeEndpoint: \"unix://{socket}\"\n\
             cgroupDriver: cgroupfs\n\
             cgroupRoot: /{group}\n\
             failCgroupV1: false\n\
             failSwapOn: false\n\
             podLogsDir: \"{logs}\"\n\
             makeIPTablesUtilChains: false\n\
             localStorageCapacityIsolation: false\n\
             evictionHard: {{memory.available: 100Mi}}\n\
             imageGCHighThresholdPercent: 100\n\
             imageGCLowThresholdPercent: 99\n\
             resolvConf: \"\"\n\
             nodeStatusReportFrequency: 10s\n\
             nodeStatusUpdateFrequency: 5s\n\
             syncFrequency: 10s\n",
            port = self.port,
            authority = keys::directory(&self.run).join("ca.crt").display(),
            socket = self.socket().display(),
            group = self.group(),
            logs = self.run.join("kubelet-logs").display(),
        )
    }

    /// Images are loaded here; no registry is asked.
    fn ctr(&self) -> Command {
        let mut command = Command::new("ctr");
        command
            .arg("--address")
            .arg(self.socket())
            .args(["--namespace", NAMESPACE])
            .stdin(Stdio::null());
        command
    }

    /// Ends every container.
    fn end_containers(&self) {
        let runc = || {
            let mut runc = Command::new("runc");
            runc.arg("--root").arg(self.containers().join(NAMESPACE));
            runc
        };
        let mut list = runc();
        list.args(["list", "--quiet"]);
        for container in output(list).unwrap_or_default().lines() {
            let mut delete = runc();
            delete
                .args(["delete", "--force", container])
                .stderr(Stdio::null());
            let _ = delete.status();
        }
        // What watched over them does not end with containerd.
        let socket = self.socket().display().to_string();
        for pid in processes(&[&socket, "-address"]) {
            let _ = signal(pid, "KILL");
        }
    }

    /// Takes away what is outside of the run directory, and what is mounted in it.
    fn clear(&self) {
        let mounts = fs::read_to_string("/proc/mounts").unwrap_or_default();
        let below = format!("{}/", self.run.display());
        let mut ours: Vec<&str> = mounts.lines().filter_map(|line| line.split(' ').nth(1)).collect();
        ours.retain(|place| place.starts_with(&below));
        ours.sort_unstable();
        for place in ours.iter().rev() {
            let _ = words(&["umount", "--lazy", place]).status();
        }
        self.forget_api();
        if Path::new("/sys/class/net").join(self.bridge()).exists() {
            let _ = words(&["ip", "link", "delete", &self.bridge()]).status();
        }
        for group in self.groups() {
            remove_tree(&group);
        }
        let _ = fs::remove_dir_all(self.run.join("containerd-addresses"));
        let _ = fs::remove_file(self.socket());
    }
}

fn words(words: &[&str]) -> Command {
    let mut command = Command::new(words.first().unwrap_or(&"true"));
    command.args(words.iter().skip(1)).stdin(Stdio::null());
    command
}

/// Control groups are deleted from below; there are no files in them that could be.
fn remove_tree(group: &Path) {
    for entry in fs::read_dir(group).into_iter().flatten().flatten() {
        if entry.path().is_dir() {
            remove_tree(&entry.path());
        }
    }
    let _ = fs::remove_dir(group);
}

/// Where containerd is told what it is to be.
pub(super) fn configuration(run: &Path) -> PathBuf {
    run.join("containerd.toml")
}

/// Makes what containerd needs. The kubelet's port names things; pods are led to the API server at its own.
pub(super) fn prepare(run: &Path, record: &Record, kubelet: u16, api: u16) -> Result<(), Failed> {
    let node = Node {
        run: run.to_owned(),
        port: kubelet,
    };
    node.network()?;
    node.lead_to_api(api)?;
    write(&configuration(run), &node.containerd(record.port())?)
}

/// Tells the kubelet's command what it needs. What containerd needs to run any pod is loaded here.
pub(super) fn kubelet(command: &mut Command, run: &Path, record: &Record) -> Result<(), Failed> {
    let [port, health] = record.ports[..] else {
        return Err("kubelet has not its two ports".to_owned());
    };
    let node = Node {
        run: run.to_owned(),
        port,
    };
    for group in node.groups() {
        make(&group)?;
    }
    node.load(&Image::new(PAUSE, &["/bin/sleep", "2147483647"]))?;
    let file = run.join("kubelet.yaml");
    write(&file, &node.kubelet(health))?;
    command
        .arg(format!("--config={}", file.display()))
        .arg(format!("--root-dir={}", run.join("kubelet-root").display()))
        .arg(format!("--cert-dir={}", run.join("kubelet-keys").display()))
        .args(["--hostname-override=localhost", "--node-labels=type=real"]);
    Ok(())
}

impl Node {
    fn load(&self, image: &Image) -> Result<(), Failed> {
        let archive = images::pack(&self.run, image)?;
        let mut import = self.ctr();
        import.args(["images", "import"]).arg(&archive);
        cache::run(import, &self.run.join("kubelet-images.log"))?;
        fs::remove_file(&archive).map_err(|error| format!("{}: {error}", archive.display()))
    }
}

/// Gives an image to the node.
pub(crate) fn load(run: &Path, image: &Image) -> Result<(), Failed> {
    let node = Node::of(run).ok_or("there is no kubelet")?;
    node.load(image)
}

/// Whether containerd answers.
pub(super) fn is_up(run: &Path) -> bool {
    let Some(node) = Node::of(run) else { return false };
    let mut version = node.ctr();
    version.arg("version").stdout(Stdio::null()).stderr(Stdio::null());
    version.status().is_ok_and(|status| status.success())
}

/// Ends what runs in pods, once the kubelet is gone.
pub(crate) fn end_containers(run: &Path) {
    if let Some(node) = Node::of(run) {
        node.end_containers();
    }
}

/// Takes away what the node has left, once containerd is gone.
pub(crate) fn clear(run: &Path) {
    if let Some(node) = Node::of(run) {
        node.clear();
    }
}
