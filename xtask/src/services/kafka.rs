//! Apache Kafka in KRaft mode: from Maven's jars, brokers that are controllers too.

use std::fmt::Write as _;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::cache::{self, make, produced, write};
use super::keys;
use super::process::Record;
use crate::Failed;

/// What is run.
pub(crate) const VERSION: &str = "4.1.0";
/// What it logs with: the version that it is built with.
const LOG4J: &str = "2.24.3";
/// Which of Maven's plugins copies jars.
const COPY: &str = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies";
/// Names a cluster as 16 bytes in base64: one on a machine of its own needs no more.
const CLUSTER: &str = "d29ya2xvYWQtc2NoZWR1bA";
/// Small, but enough for a thousand topics.
const HEAP: &str = "-Xmx512m";
/// How long a question to a broker may take.
const ANSWER: Duration = Duration::from_secs(5);

/// Where the jars are; fetched if they are not there.
pub(crate) fn jars() -> Result<PathBuf, Failed> {
    let cache = cache::directory("kafka")?;
    let jars = cache.join(format!("{VERSION}-jars"));
    if jars.exists() {
        return Ok(jars);
    }
    let _lock = cache::lock(&cache)?;
    produced(&jars, |partial| {
        println!("fetching Apache Kafka {VERSION} with Maven (once; 54 MB)");
        let source = cache.join("source");
        make(&source)?;
        write(&source.join("pom.xml"), &pom())?;
        let mut maven = Command::new("mvn");
        maven
            .args(["-q", "-B", COPY])
            .arg(format!("-DoutputDirectory={}", partial.display()))
            .current_dir(&source);
        cache::run(maven, &cache.join("maven.log"))
    })?;
    Ok(jars)
}

fn pom() -> String {
    let dependency = |group: &str, artifact: &str, version: &str| {
        format!(
            "<dependency><groupId>{group}</groupId><artifactId>{artifact}</artifactId><version>{version}</version></dependency>\n"
        )
    };
    format!(
        "<project xmlns=\"http://maven.apache.org/POM/4.0.0\"><modelVersion>4.0.0</modelVersion>\n\
         <groupId>local</groupId><artifactId>kafka</artifactId><version>1</version><packaging>pom</packaging>\n\
         <dependencies>\n{}{}{}</dependencies></project>\n",
        dependency("org.apache.kafka", "kafka_2.13", VERSION),
        dependency("org.apache.kafka", "kafka-tools", VERSION),
        // The jars say nothing without it.
        dependency("org.apache.logging.log4j", "log4j-slf4j-impl", LOG4J)
    )
}

/// A broker's name among the services.
pub(crate) fn name(broker: u16) -> String {
    format!("kafka-{broker}")
}

/// Most listeners besides that for clients and that for controllers: as many as there are documented ports between those of two brokers.
pub(crate) const MOST_FURTHER: usize = 8;

/// The ports of a broker as they are documented: for clients, for controllers, and for further listeners.
pub(crate) fn usual_ports(broker: u16, further: usize) -> Vec<u16> {
    let first = 29_092 + (broker - 1) * 10;
    (first..first + 2)
        .chain((first + 2..).take(further.min(MOST_FURTHER)))
        .collect()
}

/// The listeners that speak TLS: without a password, and with [`PASSWORD`]. Theirs are the last of a broker's ports.
pub(crate) const TLS_LISTENERS: usize = 2;
/// Who may come in at the second: name and password.
const PASSWORD: (&str, &str) = ("anna", "anna-secret");

/// Where the keys of brokers with TLS lie.
pub(crate) fn keys(run: &Path) -> PathBuf {
    run.join("kafka-keys")
}

/// Makes them, unless they are there: from then on brokers of this run directory have TLS.
pub(crate) fn make_keys(run: &Path) -> Result<(), Failed> {
    let keys = keys(run);
    keys::of_server(&keys)?;
    // Java wants key and certificate in one file.
    let read = |name: &str| {
        std::fs::read_to_string(keys.join(name))
            .map_err(|error| format!("{}/{name}: {error}", keys.display()))
    };
    let both = format!("{}{}", read("server.key")?, read("server.crt")?);
    write(&keys.join("server.pem"), &both)?;
    keys::private(&keys.join("server.pem"))
}

/// What identifies a broker's process, and configures it.
pub(crate) fn configuration(run: &Path, broker: u16) -> PathBuf {
    run.join(format!("{}.properties", name(broker)))
}

/// Starts those brokers of a cluster that do not run; all of the cluster's ports are known by then.
pub(crate) fn start(
    run: &Path,
    jars: &Path,
    cluster: &mut [Record],
    detours: &[Vec<u16>],
) -> Result<(), Failed> {
    let classes = format!("{}/*", jars.display());
    let keys = Some(keys(run)).filter(|keys| keys.exists());
    let logging = run.join("kafka-log4j2.properties");
    write(&logging, LOGGING)?;
    let idle: Vec<u16> = (1..)
        .zip(cluster.iter())
        .filter(|(_, record)| record.running().is_none())
        .map(|(broker, _)| broker)
        .collect();
    for &broker in &idle {
        let configuration = configuration(run, broker);
        write(
            &configuration,
            &properties(run, broker, cluster, detours, keys.as_deref()),
        )?;
        let data = data(run, broker, cluster.len());
        if !data.join("meta.properties").exists() {
            let mut format = Command::new("java");
            format
                .args(["-Xmx128m", "-cp", &classes, "kafka.tools.StorageTool", "format"])
                .args(["--ignore-formatted", "--cluster-id", CLUSTER, "--config"])
                .arg(&configuration);
            cache::run(
                format,
                &super::process::log(run, &format!("{}-format", name(broker))),
            )?;
        }
    }
    for &broker in &idle {
        let mut java = Command::new("java");
        java.args([HEAP, "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"])
            .arg(format!("-Dlog4j2.configurationFile={}", logging.display()))
            .args(["-cp", &classes, "kafka.Kafka"])
            .arg(configuration(run, broker));
        cluster[usize::from(broker) - 1].start(run, java)?;
    }
    Ok(())
}

fn data(run: &Path, broker: u16, brokers: usize) -> PathBuf {
    // Clusters of different sizes are different clusters.
    run.join(format!("kafka-data-of-{brokers}"))
        .join(broker.to_string())
}

const LOGGING: &str = "\
status=error
rootLogger.level=warn
rootLogger.appenderRef.out.ref=out
appender.out.type=Console
appender.out.name=out
appender.out.layout.type=PatternLayout
appender.out.layout.pattern=%d{ISO8601} %p %c{1}: %m%n
logger.server.name=kafka.server.KafkaRaftServer
logger.server.level=info
";

/// `detours` has for each detour at which port each broker is said to be: who asks a broker there is led to the others by the same detour.
/// With `keys` there are listeners with TLS besides.
fn properties(
    run: &Path,
    broker: u16,
    cluster: &[Record],
    detours: &[Vec<u16>],
    keys: Option<&Path>,
) -> String {
    let port = |broker: u16, which: usize| cluster[usize::from(broker) - 1].ports[which];
    let brokers = u16::try_from(cluster.len()).unwrap_or(u16::MAX);
    let voters: Vec<String> = (1..=brokers)
        .map(|voter| format!("{voter}@127.0.0.1:{}", port(voter, 1)))
        .collect();
    let (copies, in_sync) = if brokers < 3 { (1, 1) } else { (3, 2) };
    let (mut listeners, mut advertised, mut protocols) = (String::new(), String::new(), String::new());
    for (which, ports) in detours.iter().enumerate() {
        let (own, said) = (port(broker, 2 + which), ports[usize::from(broker) - 1]);
        // The formatting of a number into a string does not fail.
        let _ = write!(listeners, ",DETOUR{which}://127.0.0.1:{own}");
        let _ = write!(advertised, ",DETOUR{which}://127.0.0.1:{said}");
        let _ = write!(protocols, ",DETOUR{which}:PLAINTEXT");
    }
    if keys.is_some() {
        let first = 2 + detours.len();
        for (name, protocol, port) in [
            ("TLS", "SSL", port(broker, first)),
            ("PASSWORD", "SASL_SSL", port(broker, first + 1)),
        ] {
            let _ = write!(listeners, ",{name}://127.0.0.1:{port}");
            let _ = write!(advertised, ",{name}://127.0.0.1:{port}");
            let _ = write!(protocols, ",{name}:{protocol}");
        }
    }
    let security = keys.map(security).unwrap_or_default();
    format!(
        "process.roles=broker,controller\n\
         node.id={broker}\n\
         controller.quorum.voters={voters}\n\
         listeners=PLAINTEXT://127.0.0.1:{client},CONTROLLER://127.0.0.1:{controller}{listeners}\n\
         advertised.listeners=PLAINTEXT://127.0.0.1:{client}{advertised}\n\
         listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT{protocols}\n\
         controller.listener.names=CONTROLLER\n\
         log.dirs={data}\n\
         offsets.topic.replication.factor={copies}\n\
         offsets.topic.num.partitions=8\n\
         transaction.state.log.replication.factor={copies}\n\
         transaction.state.log.min.isr={in_sync}\n\
         default.replication.factor={copies}\n\
         min.insync.replicas={in_sync}\n\
         auto.create.topics.enable=false\n\
         {security}{GROUPS}",
        voters = voters.join(","),
        client = port(broker, 0),
        controller = port(broker, 1),
        data = data(run, broker, cluster.len()).display(),
    )
}

/// What the listeners with TLS go by.
fn security(keys: &Path) -> String {
    let (name, password) = PASSWORD;
    format!(
        "ssl.keystore.type=PEM\n\
         ssl.keystore.location={}\n\
         sasl.enabled.mechanisms=PLAIN\n\
         listener.name.password.plain.sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule required \
         user_{name}=\"{password}\";\n",
        keys.join("server.pem").display()
    )
}

/// Groups notice quickly who came and who died: what is tested here is fail-over, not patience.
const GROUPS: &str = "\
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=1000
group.consumer.min.session.timeout.ms=1000
group.consumer.session.timeout.ms=6000
group.consumer.min.heartbeat.interval.ms=200
group.consumer.heartbeat.interval.ms=1000
broker.session.timeout.ms=6000
";

/// How many brokers the one at that port knows to be up; none if it gives no answer.
pub(crate) fn brokers(port: u16) -> Option<u32> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let mut stream = TcpStream::connect_timeout(&address, ANSWER).ok()?;
    stream.set_read_timeout(Some(ANSWER)).ok()?;
    stream.set_write_timeout(Some(ANSWER)).ok()?;
    stream.write_all(METADATA).ok()?;
    let mut length = [0; 4];
    stream.read_exact(&mut length).ok()?;
    // A few brokers and no topics take some hundred bytes.
    let length = u32::from_be_bytes(length).min(64 << 10);
    let mut answer = vec![0; usize::try_from(length).ok()?];
    stream.read_exact(&mut answer).ok()?;
    brokers_in(&answer)
}

/// Asks for the brokers and for no topics: its length, then a Metadata request (3) of version 5, which has no tagged fields yet,
/// with correlation 1, from the client `services`, of no topics, none of which may be made.
const METADATA: &[u8] = b"\0\0\0\x17\0\x03\0\x05\0\0\0\x01\0\x08services\0\0\0\0\0";
const CORRELATION: u32 = 1;

/// After the correlation and the throttle time comes the list of brokers.
fn brokers_in(answer: &[u8]) -> Option<u32> {
    let word = |at: usize| Some(u32::from_be_bytes(answer.get(at..at + 4)?.try_into().ok()?));
    if word(0)? != CORRELATION {
        return None;
    }
    word(8)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cluster(brokers: u16, detours: usize) -> Vec<Record> {
        (1..=brokers)
            .map(|broker| Record {
                name: name(broker),
                ports: usual_ports(broker, detours),
                of: brokers,
                ..Record::default()
            })
            .collect()
    }

    #[test]
    fn one_broker_keeps_one_copy_and_three_keep_three() {
        let run = Path::new("/run/x");
        let one = properties(run, 1, &cluster(1, 0), &[], None);
        assert!(
            one.contains("\ndefault.replication.factor=1\n") && one.contains("\nmin.insync.replicas=1\n")
        );
        let three = properties(run, 3, &cluster(3, 0), &[], None);
        for line in [
            "node.id=3",
            "controller.quorum.voters=1@127.0.0.1:29093,2@127.0.0.1:29103,3@127.0.0.1:29113",
            "listeners=PLAINTEXT://127.0.0.1:29112,CONTROLLER://127.0.0.1:29113",
            "log.dirs=/run/x/kafka-data-of-3/3",
            "default.replication.factor=3",
            "min.insync.replicas=2",
        ] {
            assert!(three.lines().any(|one| one == line), "{line} is not in\n{three}");
        }
    }

    #[test]
    fn a_detour_is_a_listener_that_says_it_is_elsewhere() {
        let detours = [vec![7_001, 7_002, 7_003], vec![8_001, 8_002, 8_003]];
        let second = properties(Path::new("/run/x"), 2, &cluster(3, 2), &detours, None);
        for line in [
            "listeners=PLAINTEXT://127.0.0.1:29102,CONTROLLER://127.0.0.1:29103,DETOUR0://127.0.0.1:29104,DETOUR1://127.0.0.1:29105",
            "advertised.listeners=PLAINTEXT://127.0.0.1:29102,DETOUR0://127.0.0.1:7002,DETOUR1://127.0.0.1:8002",
            "listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,DETOUR0:PLAINTEXT,DETOUR1:PLAINTEXT",
        ] {
            assert!(
                second.lines().any(|one| one == line),
                "{line} is not in\n{second}"
            );
        }
    }

    #[test]
    fn with_keys_there_are_two_listeners_more_behind_the_detours() {
        let cluster = cluster(1, 1 + TLS_LISTENERS);
        let keys = Path::new("/run/x/kafka-keys");
        let text = properties(Path::new("/run/x"), 1, &cluster, &[vec![7_001]], Some(keys));
        for line in [
            "listeners=PLAINTEXT://127.0.0.1:29092,CONTROLLER://127.0.0.1:29093,DETOUR0://127.0.0.1:29094,TLS://127.0.0.1:29095,PASSWORD://127.0.0.1:29096",
            "advertised.listeners=PLAINTEXT://127.0.0.1:29092,DETOUR0://127.0.0.1:7001,TLS://127.0.0.1:29095,PASSWORD://127.0.0.1:29096",
            "listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,DETOUR0:PLAINTEXT,TLS:SSL,PASSWORD:SASL_SSL",
        ] {
            assert!(text.lines().any(|one| one == line), "{line} is not in\n{text}");
        }
    }

    /// What the image makes a property of, as its documents say: `KAFKA_`, capitals, and a line for each dot.
    fn variable(property: &str) -> String {
        format!("KAFKA_{}", property.to_uppercase().replace('.', "_"))
    }

    #[test]
    fn the_broker_for_docker_is_the_same_as_ours() {
        let compose = include_str!("../../../compose.yaml");
        assert!(compose.contains(&format!("image: apache/kafka:{VERSION}\n")));
        let (major, _) = super::super::tidb::VERSION.split_once('-').unwrap();
        assert!(compose.contains(&format!("image: pingcap/tidb:v{major}.")));
        let said: std::collections::BTreeMap<&str, &str> = compose
            .lines()
            .filter_map(|line| line.trim().split_once(": "))
            .map(|(name, value)| (name, value.trim_matches('"')))
            .collect();
        let ours = properties(Path::new("/run/x"), 1, &cluster(1, 0), &[], None);
        // Names and data are a container's own.
        let own = ["log.dirs", "controller.quorum.voters", "listeners"];
        let mut known = Vec::new();
        for (property, value) in ours.lines().filter_map(|line| line.split_once('=')) {
            let variable = variable(property);
            if !own.contains(&property) {
                assert_eq!(said.get(variable.as_str()), Some(&value), "{variable}");
            }
            known.push(variable);
        }
        // The image reads it, as the broker's start script does.
        known.push("KAFKA_HEAP_OPTS".to_owned());
        for name in said.keys().filter(|name| name.starts_with("KAFKA_")) {
            assert!(
                known.iter().any(|known| known == name),
                "{name} is no property of ours"
            );
        }
    }

    #[test]
    fn the_brokers_of_an_answer_are_counted() {
        let mut answer = Vec::new();
        for word in [CORRELATION, 0, 3] {
            answer.extend(word.to_be_bytes());
        }
        assert_eq!(brokers_in(&answer), Some(3));
        assert_eq!(brokers_in(&answer[..10]), None);
        answer[3] = 9;
        assert_eq!(brokers_in(&answer), None);
    }

    #[test]
    fn a_request_says_how_long_it_is() {
        assert_eq!(
            METADATA[..4],
            u32::try_from(METADATA.len() - 4).unwrap().to_be_bytes()
        );
    }
}
