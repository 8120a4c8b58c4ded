//! `scheduler replay`: what a shard was told and decided, step by step.

use std::fmt::Write as _;
use std::io::{self, BufWriter, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Args;
use scheduler_core::id::{Offset, TaskId};
use scheduler_core::outcome::AttemptOutcome;
use scheduler_core::port::gateway::TaskView;
use scheduler_core::shard::{Found, Input, Output};
use scheduler_core::tape::{Replay, Step};

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// The recording.
    file: PathBuf,

    /// Only steps that are about this task, and how it is after each.
    #[arg(long)]
    task: Option<TaskId>,

    /// Only the verdict.
    #[arg(long, conflicts_with = "task")]
    quiet: bool,
}

/// Answers failure if the recording was decided otherwise.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let name = arguments.file.display();
    let bytes = std::fs::read(&arguments.file).with_context(|| format!("{name} cannot be read"))?;
    let mut replay = Replay::new(&bytes.into()).with_context(|| format!("{name} cannot be replayed"))?;
    let tenure = replay.shard().tenure();
    if let Some(task) = arguments.task.filter(|task| task.shard != tenure.shard) {
        anyhow::bail!(
            "task {task} is of shard {}, and this is a recording of {}",
            task.shard,
            tenure.shard
        );
    }
    let mut out = BufWriter::new(io::stdout().lock());
    let begun = replay.now();
    writeln!(out, "shard {}, epoch {}", tenure.shard, tenure.epoch.0)?;
    let (mut steps, mut otherwise) = (0u64, 0u64);
    while let Some(step) = replay.next() {
        let step = step.with_context(|| format!("{name} is damaged"))?;
        steps += 1;
        otherwise += u64::from(!step.agrees);
        let after = arguments.task.map(|task| replay.shard().find(task.offset));
        let is_shown = match arguments.task {
            Some(task) => is_about(&step, task.offset),
            None => !arguments.quiet,
        };
        if is_shown || !step.agrees {
            show(&mut out, &step, step.now.since(begun).as_secs_f64(), after)?;
        }
    }
    let account = replay.shard().account();
    writeln!(out, "{steps} steps; at the end {account:?}")?;
    if otherwise == 0 {
        writeln!(out, "every decision is as it was recorded")?;
        out.flush()?;
        return Ok(ExitCode::SUCCESS);
    }
    writeln!(
        out,
        "{otherwise} decisions are OTHERWISE than recorded: another version made the recording, or the shard depends on something that is not an input"
    )?;
    out.flush()?;
    Ok(ExitCode::FAILURE)
}

fn show(out: &mut impl Write, step: &Step, at: f64, after: Option<Found>) -> io::Result<()> {
    writeln!(
        out,
        "#{} +{at:.3}s {} -> {:?}{}",
        step.frame,
        told(&step.input),
        step.answer,
        if step.agrees { "" } else { "  OTHERWISE" }
    )?;
    for output in &step.outputs {
        writeln!(out, "    {}", wanted(output))?;
    }
    match after {
        Some(Found::Live(view)) => writeln!(out, "    = {}", state(&view)),
        Some(Found::Finished(task)) => writeln!(out, "    = ended: {:?}", task.ending),
        Some(Found::Dead(task)) => writeln!(out, "    = dead: {:?}: {}", task.reason, task.error),
        Some(Found::Ahead) => writeln!(out, "    = not arrived yet"),
        Some(Found::Elsewhere) => writeln!(out, "    = not in memory: saved as ended, or parked"),
        None => Ok(()),
    }
}

fn state(view: &TaskView) -> String {
    let mut text = format!("{:?}, {} attempts", view.state, view.attempts.0);
    if let Some(at) = view.next_attempt_at {
        // Writing into a string does not fail.
        let _ = write!(text, ", next at {at:?}");
    }
    if !view.error.is_empty() {
        let _ = write!(text, ", last error: {}", view.error);
    }
    text
}

fn is_about(step: &Step, offset: Offset) -> bool {
    let heard = match &step.input {
        Input::Arrive(record) => record.offset == offset,
        Input::Unpark { tasks, .. } => tasks.iter().any(|task| task.offset == offset),
        Input::Fetch(task) => task.offset == offset,
        Input::Revive(task) => task.offset == offset,
        Input::Attach { held, reported, .. } => {
            held.iter().any(|(of, _)| *of == offset) || reported.iter().any(|(of, ..)| *of == offset)
        }
        Input::Report { offset: of, .. }
        | Input::Extend { offset: of, .. }
        | Input::Cancel(of)
        | Input::Hasten(of)
        | Input::Watch(of) => *of == offset,
        _ => false,
    };
    heard
        || step.outputs.iter().any(|output| match output {
            Output::Lease { lease, .. } => lease.offset == offset,
            Output::Stop { lease, .. } => lease.offset == offset,
            Output::Changed(of) => *of == offset,
            Output::Save(checkpoint) => {
                let ended = checkpoint.finished.iter().map(|task| task.offset);
                let rows = checkpoint.parked.iter().map(|task| task.offset);
                let dead = checkpoint.dead.iter().map(|task| task.offset);
                ended.chain(rows).chain(dead).any(|of| of == offset)
            }
            _ => false,
        })
}

fn told(input: &Input) -> String {
    match input {
        Input::Arrive(record) => format!("arrives {}", record.offset.0),
        Input::Unpark { tasks, next_wake, .. } => {
            format!(
                "{} parked tasks are loaded, the next is wanted at {next_wake:?}",
                tasks.len()
            )
        }
        Input::Keys(keys) => format!("{} idempotency keys are known", keys.len()),
        Input::Fetch(task) => format!("parked {} is fetched", task.offset.0),
        Input::Revive(task) => format!("dead {} is to live again", task.offset.0),
        Input::Ask { worker, limit } => format!("worker {:032x} asks for {limit}", worker.0),
        Input::Report {
            worker,
            offset,
            token,
            outcome,
        } => format!(
            "worker {:032x} reports {} attempt {} of epoch {}: {}",
            worker.0,
            offset.0,
            token.attempt.0,
            token.epoch.0,
            ended(outcome)
        ),
        Input::Attach {
            worker,
            held,
            reported,
        } => format!(
            "worker {:032x} attaches with {} leases and {} reports",
            worker.0,
            held.len(),
            reported.len()
        ),
        Input::Policy(_) => "the policy changes".into(),
        Input::Saved(id) => format!("checkpoint {} is saved", id.0),
        other => format!("{other:?}"),
    }
}

fn ended(outcome: &AttemptOutcome) -> String {
    match outcome {
        AttemptOutcome::Succeeded { output } => format!("succeeded with {} bytes", output.len()),
        AttemptOutcome::Failed { error } => format!("failed: {error}"),
        AttemptOutcome::Rejected { error } => format!("rejected: {error}"),
        AttemptOutcome::Returned => "returned".into(),
        AttemptOutcome::Stopped => "stopped".into(),
    }
}

fn wanted(output: &Output) -> String {
    match output {
        Output::Lease { worker, lease } => format!(
            "lease {} attempt {} to {:032x} until {:?}",
            lease.offset.0, lease.token.attempt.0, worker.0, lease.run_until
        ),
        Output::Stop { worker, lease } => format!("stop {} at {:032x}", lease.offset.0, worker.0),
        Output::Settled { worker, count, .. } => format!("{count} reports of {:032x} are settled", worker.0),
        Output::Changed(offset) => format!("watchers hear of {}", offset.0),
        Output::Save(checkpoint) => format!(
            "save checkpoint {}: {} ended, {} dead, {} parked, resume at {}",
            checkpoint.id.0,
            checkpoint.finished.len(),
            checkpoint.dead.len(),
            checkpoint.parked.len(),
            checkpoint.resume.0
        ),
        Output::Truncate(offset) => format!("the log may forget what is before {}", offset.0),
        Output::LoadParked { until, limit, .. } => {
            format!("load up to {limit} parked tasks that are wanted by {until:?}")
        }
    }
}
