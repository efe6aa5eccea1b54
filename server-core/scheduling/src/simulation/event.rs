//! What can happen, and the script that a simulation leaves behind.

use std::fmt;

use super::plan::Plan;

/// An instance of one load of the model. Printed as `0`, or `1.0` for the first reload.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct At {
    pub model: u32,
    pub instance: u32,
}

/// Of a sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    pub sequence: u32,
    pub start: bool,
    pub end: bool,
}

/// `count` requests alike that come at once, numbered from `first`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arrival {
    pub first: u64,
    pub count: u32,
    pub size: u32,
    pub shape: u8,
    pub priority: u8,
    /// In milliseconds.
    pub timeout: Option<u32>,
    /// In milliseconds from the beginning.
    pub deadline: Option<u64>,
    pub step: Option<Step>,
    /// What the requests ask for, if the model's answers are cached.
    pub content: Option<u16>,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Act {
    Arrive(Arrival),
    Cancel(u64),
    /// An answer that is not the last one.
    Answer(u64),
    /// The last answer.
    Done(At, u64),
    /// `execute` returned.
    Free(At),
    Down(At),
    /// An instance that was down is back.
    Up(At),
    Retire(At),
    /// One more instance of this load.
    Add(u32),
    /// The latest load takes nothing new.
    Close,
    /// A new load takes over; the one before drains.
    Reload(u32, Box<Plan>),
}

#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// In milliseconds from the beginning.
    pub at: u64,
    pub act: Act,
}

/// A model and what happens to it. Its text is what it prints.
#[derive(Clone, Debug, PartialEq)]
pub struct Script {
    pub plan: Plan,
    pub events: Vec<Event>,
}

impl fmt::Display for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.model {
            0 => write!(f, "{}", self.instance),
            model => write!(f, "{model}.{}", self.instance),
        }
    }
}

impl fmt::Display for Arrival {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "arrive R{}", self.first)?;
        if self.count > 1 {
            write!(f, "..R{}", self.first + u64::from(self.count) - 1)?;
        }
        if self.size != 1 {
            write!(f, " size={}", self.size)?;
        }
        if self.shape != 0 {
            write!(f, " shape={}", self.shape)?;
        }
        if self.priority != 0 {
            write!(f, " priority={}", self.priority)?;
        }
        if let Some(timeout) = self.timeout {
            write!(f, " timeout={timeout}ms")?;
        }
        if let Some(deadline) = self.deadline {
            write!(f, " deadline={deadline}ms")?;
        }
        if let Some(step) = self.step {
            write!(f, " seq={}", step.sequence)?;
            match (step.start, step.end) {
                (true, true) => write!(f, " is=start,end")?,
                (true, false) => write!(f, " is=start")?,
                (false, true) => write!(f, " is=end")?,
                (false, false) => {}
            }
        }
        if let Some(content) = self.content {
            write!(f, " content={content}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Act {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Arrive(arrival) => arrival.fmt(f),
            Self::Cancel(id) => write!(f, "cancel R{id}"),
            Self::Answer(id) => write!(f, "answer R{id}"),
            Self::Done(at, id) => write!(f, "done {at} R{id}"),
            Self::Free(at) => write!(f, "free {at}"),
            Self::Down(at) => write!(f, "down {at}"),
            Self::Up(at) => write!(f, "up {at}"),
            Self::Retire(at) => write!(f, "retire {at}"),
            Self::Add(0) => write!(f, "add"),
            Self::Add(model) => write!(f, "add {model}"),
            Self::Close => write!(f, "close"),
            Self::Reload(model, plan) => write!(f, "reload {model} {plan}"),
        }
    }
}

impl fmt::Display for Script {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.plan)?;
        self.events.iter().try_for_each(|event| writeln!(f, "{:<6} {}", format!("{}ms", event.at), event.act))
    }
}
