//! Apache Kafka, TiDB, Kubernetes and a registry on this machine, for tests and development.
//!
//! What they are made of is fetched or built once into a cache outside the repository. They run detached, in a run directory that has
//! their data, logs and records; they listen on 127.0.0.1 only, and are ended by process id.

mod addresses;
pub(crate) mod cache;
mod golang;
pub(crate) mod helm;
mod kafka;
mod keys;
pub(crate) mod kube;
mod options;
mod ports;
mod private;
mod process;
mod prometheus;
mod registry;
mod tidb;

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use self::addresses::addresses;
use self::options::{Action, Options};
use self::ports::Wish;
use self::process::{LOOK, Record};
use crate::{Failed, tools};

pub(crate) use self::options::Service;
pub(crate) use self::private::{HELM, Private, TIDB};

/// How long servers may take until they answer: a cold start on a busy machine.
const PATIENCE: Duration = Duration::from_mins(2);

/// What is written of the commands.
pub(crate) const USAGE: &str = options::USAGE;

pub(crate) fn run(arguments: &[String]) -> Result<(), Failed> {
    let options = Options::parse(arguments)?;
    match options.action {
        Action::Up => {
            up(&options)?;
            print!("{}", table(&options.run));
            for (variable, value) in addresses(&options.run)? {
                println!("export {variable}={value}");
            }
            Ok(())
        }
        Action::Down => {
            let stopped = down(&options, false)?;
            println!(
                "stopped: {}",
                if stopped.is_empty() {
                    "nothing ran".into()
                } else {
                    stopped.join(", ")
                }
            );
            Ok(())
        }
        Action::Status => {
            print!("{}", table(&options.run));
            Ok(())
        }
        Action::Fetch => fetch(&options),
        Action::Images => crate::k8s::give_images(&options.run),
        Action::Guard => private::guard(&options),
    }
}

/// What is of Kubernetes, in the order in which it is started.
const KUBE: [(Service, &[kube::Server]); 4] = [
    (Service::Kube, &kube::CORE),
    (Service::Nodes, &kube::NODES),
    (Service::Kubelet, &kube::KUBELET),
    (Service::Keda, &kube::KEDA),
];

/// Brings into the cache what the chosen services are made of.
fn fetch(options: &Options) -> Result<(), Failed> {
    if options.has(Service::Kubelet) {
        kube::check_node()?;
    }
    tools::ensure_for_services(&options.services)?;
    if options.has(Service::Kube) {
        helm::binary()?;
    }
    for (service, servers) in KUBE {
        if options.has(service) {
            kube::fetch(servers)?;
        }
    }
    if options.has(Service::Keda) {
        prometheus::binary()?;
    }
    if options.has(Service::Registry) {
        registry::binary()?;
    }
    if options.has(Service::Kafka) {
        kafka::jars()?;
    }
    if options.has(Service::Tidb) {
        tidb::binary()?;
    }
    Ok(())
}

/// Starts what does not run of the chosen services, and waits until they answer. Those that were killed keep their ports and data.
fn up(options: &Options) -> Result<(), Failed> {
    cache::make(&options.run)?;
    let _lock = cache::lock(&options.run)?;
    if options.tls {
        make_keys(options)?;
    }
    let mut cluster = if options.has(Service::Kafka) {
        cluster(options)?
    } else {
        Vec::new()
    };
    // In the order in which they are started: those behind need those before.
    let mut others = Vec::new();
    for blank in blanks(options) {
        let usual = usual_ports(&blank.name);
        let beside = [cluster.as_slice(), others.as_slice()].concat();
        others.push(with_ports(options, blank, usual, &beside)?);
    }
    // Some ask for the ports of those behind them.
    for record in &others {
        record.save(&options.run)?;
    }
    fetch(options)?;
    if options.has(Service::Kafka) {
        kafka::start(&options.run, &kafka::jars()?, &mut cluster, &options.detours)?;
    }
    for index in 0..others.len() {
        let mut record = others[index].clone();
        start(&options.run, &mut record, &others)?;
        // The API server needs etcd, and everything else of Kubernetes the API server.
        if kube_server(&record.name).is_some() {
            ready(&options.run, &record, || is_up(&options.run, &record))?;
        }
        others[index] = record;
    }
    if options.has(Service::Nodes) {
        kube::register_nodes(&options.run)?;
    }
    let brokers = u32::try_from(cluster.len()).unwrap_or(u32::MAX);
    for broker in &cluster {
        ready(&options.run, broker, || {
            kafka::brokers(broker.port()) == Some(brokers)
        })?;
    }
    for record in &others {
        ready(&options.run, record, || is_up(&options.run, record))?;
    }
    Ok(())
}

/// Makes the keys that are missing for TLS.
fn make_keys(options: &Options) -> Result<(), Failed> {
    tools::ensure_for_tls()?;
    let run = &options.run;
    let running = |service| {
        let records = records(run, &[service].into());
        records.iter().any(|record| record.running().is_some())
    };
    let without = |name: &str| {
        format!("{name} runs without TLS; end it with `cargo xtask services down --{name}` first")
    };
    if options.has(Service::Kafka) {
        if !kafka::keys(run).exists() && running(Service::Kafka) {
            return Err(without("kafka"));
        }
        kafka::make_keys(run)?;
    }
    if options.has(Service::Tidb) {
        if !tidb::keys(run).exists() && running(Service::Tidb) {
            return Err(without("tidb"));
        }
        tidb::make_keys(run)?;
    }
    Ok(())
}

/// What there is to be besides brokers, without ports.
fn blanks(options: &Options) -> Vec<Record> {
    let blank = |name: &str, version: &str, mark: String| Record {
        name: name.to_owned(),
        version: version.to_owned(),
        mark,
        of: 1,
        ..Record::default()
    };
    let run = &options.run;
    let mut blanks = Vec::new();
    if options.has(Service::Tidb) {
        blanks.push(blank(tidb::NAME, tidb::VERSION, tidb::mark(run)));
    }
    if options.has(Service::Registry) {
        blanks.push(blank(registry::NAME, registry::VERSION, registry::mark(run)));
    }
    for (service, servers) in KUBE {
        for server in servers.iter().filter(|_| options.has(service)) {
            blanks.push(blank(server.name, server.version(), server.mark(run)));
        }
    }
    blanks
}

fn kube_server(name: &str) -> Option<kube::Server> {
    let mut servers = KUBE.iter().flat_map(|(_, servers)| *servers);
    servers.find(|server| server.name == name).copied()
}

fn usual_ports(name: &str) -> &'static [u16] {
    match (name, kube_server(name)) {
        (_, Some(server)) => server.usual_ports,
        (registry::NAME, None) => &registry::USUAL_PORTS,
        _ => &tidb::USUAL_PORTS,
    }
}

fn start(run: &Path, record: &mut Record, beside: &[Record]) -> Result<(), Failed> {
    match (record.name.as_str(), kube_server(&record.name)) {
        (_, Some(server)) => server.start(run, record, beside),
        (registry::NAME, None) => registry::start(run, &registry::binary()?, record),
        _ => tidb::start(run, &tidb::binary()?, record),
    }
}

/// Whether it answers as one of its kind does.
fn is_up(run: &Path, record: &Record) -> bool {
    match (service_of(&record.name), kube_server(&record.name)) {
        (_, Some(server)) => server.is_up(run, record),
        (Service::Registry, None) => registry::is_up(record.port()),
        (Service::Tidb, None) => tidb::is_up(record.ports.get(1).copied().unwrap_or_default()),
        _ => kafka::brokers(record.port()).is_some(),
    }
}

/// Which service a record is of.
fn service_of(name: &str) -> Service {
    let is_of = |servers: &[kube::Server]| servers.iter().any(|server| server.name == name);
    match name {
        tidb::NAME => Service::Tidb,
        registry::NAME => Service::Registry,
        _ => KUBE
            .iter()
            .find(|(_, servers)| is_of(servers))
            .map_or(Service::Kafka, |(service, _)| *service),
    }
}

/// The brokers that there are to be, with ports.
fn cluster(options: &Options) -> Result<Vec<Record>, Failed> {
    let known = records(&options.run, &[Service::Kafka].into());
    let meant = known
        .iter()
        .find(|record| record.pid.is_some())
        .map(|record| record.of);
    let brokers = options.brokers.or(meant).unwrap_or(1);
    if let Some(detour) = options
        .detours
        .iter()
        .find(|detour| detour.len() != usize::from(brokers))
    {
        return Err(format!(
            "a detour has {} ports, and there are {brokers} brokers; --detour takes one port for each",
            detour.len()
        ));
    }
    if let Some(other) = known
        .iter()
        .find(|record| record.of != brokers && record.running().is_some())
    {
        return Err(format!(
            "a cluster of {} runs, and not of {brokers}; end it with `cargo xtask services down --kafka` first",
            other.of
        ));
    }
    for old in known.iter().filter(|record| record.of != brokers) {
        let _ = fs::remove_file(options.run.join(format!("{}.process", old.name)));
    }
    let for_tls = if kafka::keys(&options.run).exists() {
        kafka::TLS_LISTENERS
    } else {
        0
    };
    let mut cluster: Vec<Record> = Vec::new();
    for broker in 1..=brokers {
        let mark = kafka::configuration(&options.run, broker).display().to_string();
        let blank = Record {
            name: kafka::name(broker),
            version: kafka::VERSION.to_owned(),
            mark,
            of: brokers,
            ..Record::default()
        };
        let record = with_ports(
            options,
            blank,
            &kafka::usual_ports(broker, options.detours.len() + for_tls),
            &cluster,
        )?;
        cluster.push(record);
    }
    Ok(cluster)
}

/// The record with the ports that it had, while they can be had, or else with new ones.
fn with_ports(options: &Options, blank: Record, usual: &[u16], beside: &[Record]) -> Result<Record, Failed> {
    if let Some(known) = Record::load(&options.run, &blank.name)
        && known.ports.len() == usual.len()
        && (known.running().is_some() || ports::are_free(&known.ports))
    {
        return Ok(Record {
            pid: known.pid,
            ports: known.ports,
            ..blank
        });
    }
    // Those of other services that do not run now may be promised too.
    let mut taken: Vec<u16> = beside.iter().flat_map(|record| record.ports.clone()).collect();
    let others = Record::all(&options.run);
    taken.extend(
        others
            .iter()
            .filter(|record| record.name != blank.name)
            .flat_map(|record| &record.ports),
    );
    Ok(Record {
        ports: ports::choose(options.ports, usual, &taken)?,
        ..blank
    })
}

/// Waits until it answers.
fn ready(run: &Path, record: &Record, answers: impl Fn() -> bool) -> Result<(), Failed> {
    let begun = Instant::now();
    while !answers() {
        let problem = if record.running().is_none() {
            "ended instead of getting ready".to_owned()
        } else if begun.elapsed() > PATIENCE {
            format!("gives no answer after {} s", PATIENCE.as_secs())
        } else {
            // Nothing tells us when a server of others begins to answer.
            std::thread::sleep(LOOK);
            continue;
        };
        let log = process::log(run, &record.name);
        return Err(format!(
            "{} {problem}; {} ends with:\n{}",
            record.name,
            log.display(),
            record.tail(run)
        ));
    }
    Ok(())
}

/// Ends the chosen services; gives their names.
fn down(options: &Options, force: bool) -> Result<Vec<String>, Failed> {
    if !options.run.exists() {
        return Ok(Vec::new());
    }
    let _lock = cache::lock(&options.run)?;
    let mut stopped = Vec::new();
    // A cluster that goes on does so without it.
    if options.has(Service::Keda) && !options.has(Service::Kube) {
        kube::withdraw_keda(&options.run)?;
    }
    // Those that need others have names behind theirs.
    for mut record in records(&options.run, &options.services).into_iter().rev() {
        if record.running().is_some() {
            stopped.push(record.name.clone());
        }
        if record.name == kube::CONTAINERD {
            kube::end_containers(&options.run);
            record.stop(&options.run, force)?;
            kube::clear(&options.run);
        } else {
            record.stop(&options.run, force)?;
        }
    }
    if options.wipe {
        wipe(options)?;
    }
    Ok(stopped)
}

/// How the names of their files begin.
const FILES: [(&str, Service); 9] = [
    ("kafka", Service::Kafka),
    ("tidb", Service::Tidb),
    ("etcd", Service::Kube),
    ("kube", Service::Kube),
    ("containerd", Service::Kubelet),
    ("kubelet", Service::Kubelet),
    ("keda", Service::Keda),
    ("kwok", Service::Nodes),
    ("registry", Service::Registry),
];

/// Deletes the chosen services' data and keeps their logs.
fn wipe(options: &Options) -> Result<(), Failed> {
    for entry in fs::read_dir(&options.run).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let path = entry.path();
        let ours = FILES
            .iter()
            .any(|(begins, service)| options.has(*service) && name.starts_with(begins));
        let gone = match (ours, path.is_dir()) {
            (true, true) => fs::remove_dir_all(&path),
            (true, false) if path.extension().is_none_or(|extension| extension != "log") => {
                fs::remove_file(&path)
            }
            _ => Ok(()),
        };
        gone.map_err(|error| format!("{} cannot be deleted: {error}", path.display()))?;
    }
    Ok(())
}

fn records(run: &Path, services: &BTreeSet<Service>) -> Vec<Record> {
    let mut records = Record::all(run);
    records.retain(|record| services.contains(&service_of(&record.name)));
    records
}

/// What there is, for people.
fn table(run: &Path) -> String {
    let records = Record::all(run);
    if records.is_empty() {
        return "no services; `cargo xtask services up` starts them\n".to_owned();
    }
    let mut table = format!(
        "{:<24} {:<13} {:<8} {:>7} {:>6} {:>9}  LOG\n",
        "SERVICE", "VERSION", "STATE", "PID", "PORT", "RSS"
    );
    for record in records {
        let running = record.running();
        let answers = || is_up(run, &record);
        let state = match (running, record.pid) {
            (Some(_), _) if answers() => "up",
            (Some(_), _) => "silent",
            (None, Some(_)) => "died",
            (None, None) => "stopped",
        };
        let resident = running.and_then(process::resident);
        let _ = writeln!(
            table,
            "{:<24} {:<13} {:<8} {:>7} {:>6} {:>9}  {}",
            record.name,
            record.version,
            state,
            record.pid.map_or("-".to_owned(), |pid| pid.to_string()),
            record.port(),
            resident.map_or("-".to_owned(), |mebibytes| format!("{mebibytes} MiB")),
            process::log(run, &record.name).display()
        );
    }
    table
}

/// Ends what is being fetched or built.
pub(crate) fn cancel() {
    cache::CANCELLED.store(true, Ordering::Relaxed);
}
