//! Reads what a script prints.

use std::collections::BTreeMap;
use std::str::FromStr;

use super::event::{Act, Arrival, At, Event, Script, Step};
use super::plan::{Kind, Levels, Plan};
use crate::policy::{QueuePolicy, TimeoutAction};

/// A line that is not understood.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("cannot read `{line}`: {what}")]
pub struct ParseError {
    pub line: String,
    pub what: String,
}

type Parsed<T> = Result<T, String>;

impl FromStr for Script {
    type Err = ParseError;

    /// The first line is the model, every other a time and what happens. Blank lines are skipped.
    fn from_str(text: &str) -> Result<Self, ParseError> {
        let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
        let first = lines.next().unwrap_or_default();
        let error = |line: &str, what| ParseError { line: line.to_owned(), what };
        let plan = Words::new(first).plan().map_err(|what| error(first, what))?;
        let events = lines.map(|line| event(line).map_err(|what| error(line, what)));
        Ok(Self { plan, events: events.collect::<Result<_, _>>()? })
    }
}

/// The plain words of a line, and its `name=value` words.
struct Words<'a> {
    plain: Vec<&'a str>,
    fields: BTreeMap<&'a str, &'a str>,
}

impl<'a> Words<'a> {
    fn new(text: &'a str) -> Self {
        let (mut plain, mut fields) = (Vec::new(), BTreeMap::new());
        for word in text.split_whitespace() {
            match word.split_once('=') {
                Some((name, value)) => drop(fields.insert(name, value)),
                None => plain.push(word),
            }
        }
        Self { plain, fields }
    }

    fn word(&self, n: usize) -> Parsed<&'a str> {
        self.plain.get(n).copied().ok_or_else(|| format!("word {} is missing", n + 1))
    }

    fn field<T>(&self, name: &str, read: impl Fn(&str) -> Parsed<T>) -> Parsed<Option<T>> {
        self.fields.get(name).map(|text| read(text)).transpose()
    }

    fn number<T: FromStr + Default>(&self, name: &str) -> Parsed<T> {
        Ok(self.field(name, number)?.unwrap_or_default())
    }

    fn has(&self, word: &str) -> bool {
        self.plain.contains(&word)
    }

    fn plan(&self) -> Parsed<Plan> {
        let delay = || Ok::<u64, String>(self.field("delay", ms)?.unwrap_or(0));
        let idle = || Ok::<u64, String>(self.field("idle", ms)?.unwrap_or(0));
        let preferred = || Ok::<_, String>(self.field("preferred", list)?.unwrap_or_default());
        let kind = match self.word(0)? {
            "direct" => Kind::Direct,
            "dynamic" => {
                let max = self.number("max")?;
                Kind::Dynamic { max, preferred: preferred()?, delay: delay()?, levels: self.levels()? }
            }
            "rows" => {
                let share = self.field("share", number::<f32>)?.unwrap_or(0.0);
                let share = (share * 100.0).round() as u32;
                Kind::Rows { max: self.number("max")?, idle: idle()?, delay: delay()?, share }
            }
            "oldest" => Kind::Oldest {
                max: self.number("max")?,
                idle: idle()?,
                candidates: self.number("candidates")?,
                preferred: preferred()?,
                delay: delay()?,
            },
            other => return Err(format!("`{other}` is no kind of model")),
        };
        Ok(Plan {
            kind,
            instances: self.field("instances", number)?.unwrap_or(1),
            in_flight: self.number("in_flight")?,
            pull: self.has("pull"),
            lazy: self.has("lazy"),
            late: self.field("late", ms)?.unwrap_or(0),
            ordered: self.has("ordered"),
            cached: self.has("cached"),
        })
    }

    fn levels(&self) -> Parsed<Levels> {
        let named = self.fields.iter().filter_map(|(name, text)| {
            let level = name.strip_prefix("queue").filter(|level| !level.is_empty())?;
            Some(number(level).and_then(|level| Ok((level, policy(text)?))))
        });
        Ok(Levels {
            levels: self.number("levels")?,
            level: self.number("level")?,
            queue: self.field("queue", policy)?.unwrap_or_default(),
            by_level: named.collect::<Parsed<_>>()?,
        })
    }

    fn arrival(&self) -> Parsed<Arrival> {
        let names = self.word(1)?;
        let (first, last) = names.split_once("..").unwrap_or((names, names));
        let (first, last) = (request(first)?, request(last)?);
        let count = last.checked_sub(first).and_then(|more| u32::try_from(more + 1).ok());
        let is = |what: &str| self.fields.get("is").is_some_and(|is| is.split(',').any(|is| is == what));
        let sequence = self.field("seq", number)?;
        Ok(Arrival {
            first,
            count: count.ok_or("the names are not in order")?,
            size: self.field("size", number)?.unwrap_or(1),
            shape: self.number("shape")?,
            priority: self.number("priority")?,
            timeout: self.field("timeout", ms)?,
            deadline: self.field("deadline", ms)?,
            step: sequence.map(|sequence| Step { sequence, start: is("start"), end: is("end") }),
            content: self.field("content", number)?,
        })
    }
}

fn event(line: &str) -> Parsed<Event> {
    let (time, rest) = line.split_once(' ').ok_or("there is no event")?;
    let words = Words::new(rest);
    let at = |n| words.word(n).and_then(at);
    let name = |n| words.word(n).and_then(request);
    let act = match words.word(0)? {
        "arrive" => Act::Arrive(words.arrival()?),
        "cancel" => Act::Cancel(name(1)?),
        "answer" => Act::Answer(name(1)?),
        "done" => Act::Done(at(1)?, name(2)?),
        "free" => Act::Free(at(1)?),
        "down" => Act::Down(at(1)?),
        "up" => Act::Up(at(1)?),
        "retire" => Act::Retire(at(1)?),
        "add" => Act::Add(words.word(1).map_or(Ok(0), number)?),
        "close" => Act::Close,
        "reload" => {
            let mut plan = Words::new(rest);
            plan.plain.drain(..plan.plain.len().min(2));
            Act::Reload(number(words.word(1)?)?, Box::new(plan.plan()?))
        }
        other => return Err(format!("`{other}` is no event")),
    };
    Ok(Event { at: ms(time)?, act })
}

fn number<T: FromStr>(text: &str) -> Parsed<T> {
    text.parse().map_err(|_| format!("`{text}` is no number"))
}

fn ms<T: FromStr>(text: &str) -> Parsed<T> {
    text.strip_suffix("ms").ok_or_else(|| format!("`{text}` is no time in ms")).and_then(number)
}

fn list(text: &str) -> Parsed<Vec<u32>> {
    text.split(',').map(number).collect()
}

fn request(text: &str) -> Parsed<u64> {
    text.strip_prefix('R').ok_or_else(|| format!("`{text}` is no request")).and_then(number)
}

fn at(text: &str) -> Parsed<At> {
    let (model, instance) = text.split_once('.').unwrap_or(("0", text));
    Ok(At { model: number(model)?, instance: number(instance)? })
}

fn policy(text: &str) -> Parsed<QueuePolicy> {
    let mut policy = QueuePolicy::default();
    for word in text.split(',') {
        match word {
            "reject" => policy.timeout_action = TimeoutAction::Reject,
            "delay" => policy.timeout_action = TimeoutAction::Delay,
            "override" => policy.allow_timeout_override = true,
            word => match word.strip_prefix("max=") {
                Some(max) => policy.max_queue_size = number(max)?,
                None => policy.default_timeout_microseconds = ms::<u64>(word)?.saturating_mul(1_000),
            },
        }
    }
    Ok(policy)
}
