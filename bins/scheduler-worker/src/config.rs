use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Parser;

use crate::executor::ConfigError;

/// Runs the steps of a pipeline's tasks through command executors.
///
/// Executors are named by `PIPELINE_AGENT__EXECUTORS__<n>__NAME` and `PIPELINE_AGENT__EXECUTORS__<n>__TARGET`
/// (`127.0.0.1:50051`) with n = 0, 1, 2, …, or by --executor.
#[derive(Clone, Debug, Parser)]
#[command(version)]
pub struct Arguments {
    /// Name of this worker, for people.
    #[arg(long, env = "PIPELINE_AGENT__NAME", default_value = "pipeline-agent")]
    pub name: String,

    /// URL of a scheduler node, as `http://127.0.0.1:50050`; may be given several times, with commas in the environment.
    /// Without it only the HTTP endpoints are served.
    #[arg(long, env = "SCHEDULER_URL", value_delimiter = ',', requires_all = ["application", "pipeline"])]
    pub server: Vec<String>,

    /// The application of the pipeline.
    #[arg(long, env = "SCHEDULER_APPLICATION")]
    pub application: Option<String>,

    /// The pipeline whose tasks to run.
    #[arg(long, env = "SCHEDULER_PIPELINE")]
    pub pipeline: Option<String>,

    /// The key of the client that owns the application.
    #[arg(long, env = "SCHEDULER_API_KEY", hide_env_values = true)]
    pub api_key: Option<String>,

    /// Tasks that run at once. Above 1, commands have to use `{{pipe}}` or `$PIPE_DIR` for the workspace.
    #[arg(long, env = "SCHEDULER_CONCURRENCY", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub concurrency: u32,

    /// The directory that the steps of a task share; of this worker alone, as it is emptied. Default: /mnt/pipe if this
    /// process sees it, else the executors' own business.
    #[arg(long, env = "SCHEDULER_WORKSPACE")]
    pub workspace: Option<PathBuf>,

    /// Where to serve /healthz, /ready and POST /api/v1/pipeline: `:80`, `127.0.0.1:0` or `off`.
    #[arg(long, env = "SCHEDULER_WORKER_HTTP", default_value = ":80")]
    pub http: HttpAddress,

    /// On SIGTERM: seconds that running tasks may take to end.
    #[arg(long, env = "SCHEDULER_DRAIN_SECONDS", default_value_t = 30)]
    pub drain_seconds: u64,

    /// End at once when standard input ends, as it does when the process that started this one dies.
    #[arg(long, env = "EXIT_WITH_STDIN", value_parser = clap::builder::FalseyValueParser::new())]
    pub exit_with_stdin: bool,

    /// An executor besides those of the environment, as NAME=127.0.0.1:50051; may be given several times.
    #[arg(long = "executor", value_name = "NAME=TARGET")]
    pub executors: Vec<ExecutorArgument>,
}

/// Where HTTP is served, if at all.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum HttpAddress {
    /// Nowhere.
    Off,
    /// Here.
    On(SocketAddr),
}

impl std::str::FromStr for HttpAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "off" {
            return Ok(Self::Off);
        }
        let address = match text.strip_prefix(':') {
            Some(port) => format!("0.0.0.0:{port}").parse(),
            None => text.parse(),
        };
        address
            .map(Self::On)
            .map_err(|_| format!("`{text}` is no address; use `:80`, `127.0.0.1:8080` or `off`"))
    }
}

/// `NAME=TARGET` of the command line.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ExecutorArgument {
    name: String,
    target: String,
}

impl std::str::FromStr for ExecutorArgument {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (name, target) = text
            .split_once('=')
            .ok_or_else(|| format!("`{text}` has no `=`; use NAME=TARGET"))?;
        Ok(Self {
            name: name.to_owned(),
            target: target.to_owned(),
        })
    }
}

impl Arguments {
    /// Names and targets of all executors, those of the environment first.
    ///
    /// # Errors
    ///
    /// A name without a target, or the reverse.
    pub fn all_executors(
        &self,
        environment: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Vec<(String, String)>, ConfigError> {
        let mut executors = executors_from_environment(environment)?;
        executors.extend(
            self.executors
                .iter()
                .map(|argument| (argument.name.clone(), argument.target.clone())),
        );
        Ok(executors)
    }
}

/// Names and targets of the executors that `PIPELINE_AGENT__EXECUTORS__…` variables give, in the order of their numbers.
///
/// # Errors
///
/// A name without a target, or the reverse.
pub fn executors_from_environment(
    environment: impl IntoIterator<Item = (String, String)>,
) -> Result<Vec<(String, String)>, ConfigError> {
    const PREFIX: &str = "PIPELINE_AGENT__EXECUTORS__";
    let mut executors: BTreeMap<u32, (Option<String>, Option<String>)> = BTreeMap::new();
    for (variable, value) in environment {
        // The existing agent reads these names without regard to case.
        let upper = variable.to_ascii_uppercase();
        let Some((number, field)) = upper.strip_prefix(PREFIX).and_then(|rest| rest.split_once("__")) else {
            continue;
        };
        let Ok(number) = number.parse() else {
            return Err(ConfigError(format!(
                "{variable}: `{number}` is no number; use {PREFIX}0__{field}"
            )));
        };
        let executor = executors.entry(number).or_default();
        match field {
            "NAME" => executor.0 = Some(value),
            "TARGET" => executor.1 = Some(value),
            _ => tracing::warn!(variable, "unknown variable; an executor has NAME and TARGET"),
        }
    }
    let complete = |(number, executor)| match executor {
        (Some(name), Some(target)) => Some(Ok((name, target))),
        (Some(_), None) => Some(Err(ConfigError(format!("{PREFIX}{number}__TARGET is missing")))),
        (None, Some(_)) => Some(Err(ConfigError(format!("{PREFIX}{number}__NAME is missing")))),
        (None, None) => None,
    };
    executors.into_iter().filter_map(complete).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(variables: &[(&str, &str)]) -> Result<Vec<(String, String)>, String> {
        let variables = variables
            .iter()
            .map(|&(name, value)| (name.to_owned(), value.to_owned()));
        executors_from_environment(variables).map_err(|error| error.to_string())
    }

    #[test]
    fn executors_come_from_the_environment_of_existing_charts() {
        let executors = read(&[
            ("PATH", "/bin"),
            ("PIPELINE_AGENT__NAME", "agent"),
            ("PIPELINE_AGENT__EXECUTORS__10__NAME", "mc"),
            ("PIPELINE_AGENT__EXECUTORS__10__TARGET", "127.0.0.1:50053"),
            ("PIPELINE_AGENT__EXECUTORS__0__TARGET", "127.0.0.1:50051"),
            ("Pipeline_Agent__Executors__0__Name", "wget"),
        ]);
        let expected = [("wget", "127.0.0.1:50051"), ("mc", "127.0.0.1:50053")];
        assert_eq!(
            executors.unwrap(),
            expected.map(|(name, target)| (name.to_owned(), target.to_owned()))
        );
    }

    #[test]
    fn half_an_executor_is_an_error_that_names_the_other_half() {
        let missing = "PIPELINE_AGENT__EXECUTORS__1__TARGET is missing".to_owned();
        assert_eq!(
            read(&[("PIPELINE_AGENT__EXECUTORS__1__NAME", "wget")]),
            Err(missing)
        );
        let missing = "PIPELINE_AGENT__EXECUTORS__1__NAME is missing".to_owned();
        assert_eq!(
            read(&[("PIPELINE_AGENT__EXECUTORS__1__TARGET", "a:1")]),
            Err(missing)
        );
        assert!(
            read(&[("PIPELINE_AGENT__EXECUTORS__x__NAME", "a")])
                .unwrap_err()
                .contains("is no number")
        );
    }

    #[test]
    fn arguments_are_read() {
        let parse = |arguments: &[&str]| Arguments::try_parse_from([&["worker"], arguments].concat());
        let arguments = parse(&["--http", ":8080", "--executor", "wget=127.0.0.1:1"]).unwrap();
        assert_eq!(arguments.http, HttpAddress::On(([0, 0, 0, 0], 8080).into()));
        assert_eq!(
            arguments.all_executors([]).unwrap(),
            [("wget".to_owned(), "127.0.0.1:1".to_owned())]
        );
        assert_eq!(parse(&["--http", "off"]).unwrap().http, HttpAddress::Off);
        assert!(parse(&["--http", "80"]).is_err());
        assert!(parse(&["--executor", "wget"]).is_err());
        assert!(
            parse(&["--server", "http://127.0.0.1:1"]).is_err(),
            "application and pipeline are required"
        );
        assert!(parse(&["--concurrency", "0"]).is_err());
    }
}
