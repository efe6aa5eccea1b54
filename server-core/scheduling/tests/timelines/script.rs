//! A small language for time-lines. The first line is the model, every other an event at a virtual time:
//!
//! ```text
//! dynamic max=8 preferred=4,8 delay=100ms instances=1     or: direct instances=3 in_flight=2
//! dynamic max=8 levels=3 level=2 queue=delay,50ms,override,max=9 queue1=reject,20ms      queue1 is the policy of level 1
//! rows max=4 idle=900ms delay=100ms share=0.5             sequences, direct strategy
//! oldest max=4 candidates=9 preferred=4 delay=100ms       sequences, oldest strategy
//! dynamic max=4 start=8 / rows max=2 start=4 backlog=2    the first batch waits for so many
//! 0ms   arrive A B C size=2 shape=x deadline=50ms         R1..R9 stands for nine names
//! 0ms   arrive D priority=1 timeout=20ms
//! 0ms   arrive E F seq=7 is=start,end                     of a sequence; E is the START, F the END
//! 5ms   cancel A
//! 20ms  free 0                                            execute returned on instance 0
//! 20ms  finish 0                                          a request of instance 0 had its last answer
//! 20ms  done 0 E                                          the same, with its name
//! 30ms  down 0
//! 35ms  retire 0                                          instance 0 is to be removed
//! 35ms  add                                               one more instance
//! 40ms  close
//! 50ms  look                                              prints the gauges
//! ```
//! The dispatcher is polled after every line and whenever it asked to be woken. The log says what it did. A
//! batch of sequences is written by its rows: `A` with `^` for START, `$` for END, `-` is a null request, and
//! with the oldest strategy the slot comes first.

use std::collections::HashMap;
use std::fmt::Write;
use std::num::NonZeroU32;

use expect_test::Expect;
use trireme_scheduling::{
    Actions, CorrelationId, Direct, DirectSequenceConfig, DirectSequences, Dispatcher, Dynamic,
    DynamicConfig, InstanceId, InstanceSlots, OldestSequenceConfig, OldestSequences, Policies, QueuePolicy,
    RequestId, RequestInfo, Row, SequenceStep, ShapeKey, StartAfter, Time, TimeoutAction,
};

/// Runs the script and compares its log.
pub(crate) fn check(script: &str, expect: Expect) {
    let mut lines = script.lines().map(str::trim).filter(|line| !line.is_empty());
    let mut stage = Stage::new(lines.next().expect("a model"));
    for line in lines {
        let (time, event) = line.split_once(' ').expect("time and event");
        let time = parse_ms(time);
        stage.run_until(time);
        stage.event(time, event.trim());
        stage.poll(time);
    }
    stage.run_until(Time(u64::MAX));
    expect.assert_eq(&stage.finish());
}

struct Stage {
    is_oldest: bool,
    dispatcher: Dispatcher,
    actions: Actions,
    names: Vec<String>,
    ids: HashMap<String, RequestId>,
    wake: Option<Time>,
    log: String,
}

impl Stage {
    fn new(model: &str) -> Self {
        let (kind, fields) = model.split_once(' ').unwrap_or((model, ""));
        let (_, fields) = split(fields);
        let number = |name: &str| fields.get(name).map(|value| value.parse::<u32>().expect("a number"));
        let instances = number("instances").unwrap_or(1);
        let slots = InstanceSlots::new(instances, number("in_flight").and_then(NonZeroU32::new));
        let preferred: Vec<u32> = fields.get("preferred").map_or(Vec::new(), |sizes| {
            sizes.split(',').map(|size| size.parse().expect("a number")).collect()
        });
        let us = |name: &str| fields.get(name).map_or(0, |time| parse_ms(time).0 / 1_000);
        let (max, delay_us) = (number("max").unwrap_or(0), us("delay"));
        let start =
            StartAfter { queued: number("start").unwrap_or(0), backlog: number("backlog").unwrap_or(0) };
        let dispatcher = match kind {
            "direct" => Dispatcher::new(Direct::new(), slots),
            "dynamic" => {
                let config = DynamicConfig::new(max, &preferred, delay_us);
                let config = config.expect("a valid configuration").with_policies(policies(&fields));
                let config = config.with_start_after(start);
                Dispatcher::new(Dynamic::new(config), slots)
            }
            "rows" => {
                let share = fields.get("share").map_or(0.0, |share| share.parse().expect("a share"));
                let config = DirectSequenceConfig::new(max, us("idle"), delay_us, share);
                Dispatcher::new(
                    DirectSequences::new(config.expect("a valid configuration").with_start_after(start)),
                    slots,
                )
            }
            "oldest" => {
                let candidates = number("candidates").unwrap_or(0);
                let config = OldestSequenceConfig::new(max, us("idle"), candidates, &preferred, delay_us);
                Dispatcher::new(
                    OldestSequences::new(config.expect("a valid configuration").with_start_after(start)),
                    slots,
                )
            }
            other => panic!("unknown scheduler {other:?}"),
        };
        Self {
            is_oldest: kind == "oldest",
            dispatcher,
            actions: Actions::new(),
            names: Vec::new(),
            ids: HashMap::new(),
            wake: None,
            log: String::new(),
        }
    }

    /// Wakes the dispatcher as often as it asks for it up to `end`.
    fn run_until(&mut self, end: Time) {
        while let Some(time) = self.wake.filter(|&time| time <= end) {
            self.poll(time);
        }
    }

    fn event(&mut self, time: Time, event: &str) {
        let (words, fields) = split(event);
        let (verb, rest) = words.split_first().expect("a verb");
        let instance = || InstanceId(rest.first().expect("an instance").parse().expect("a number"));
        match verb.as_str() {
            "arrive" => {
                let all: Vec<String> = rest.iter().flat_map(|word| names(word)).collect();
                let is = |what: &str| fields.get("is").is_some_and(|is| is.split(',').any(|is| is == what));
                for (n, name) in all.iter().enumerate() {
                    let step = fields.get("seq").map(|id| SequenceStep {
                        correlation: id
                            .parse()
                            .map_or(CorrelationId::Text(id.as_str().into()), CorrelationId::Number),
                        start: is("start") && n == 0,
                        end: is("end") && n + 1 == all.len(),
                    });
                    self.arrive(time, name.clone(), &fields, step);
                }
            }
            "cancel" => {
                for name in rest {
                    let queued = self.dispatcher.on_cancel(self.ids[name]);
                    self.say(time, &format!("{name} {}", if queued { "cancelled" } else { "is not queued" }));
                }
            }
            "free" => self.dispatcher.on_instance_free(instance()),
            "down" => self.dispatcher.on_instance_down(instance()),
            "finish" => {
                assert!(self.dispatcher.on_request_finished(instance()), "{event}: nothing in flight")
            }
            "done" => {
                let id = self.ids[&rest[1]];
                assert!(self.dispatcher.on_request_done(instance(), id), "{event}: nothing in flight")
            }
            "retire" => self.dispatcher.retire_instance(instance()),
            "add" => drop(self.dispatcher.add_instance(None)),
            "close" => self.dispatcher.close(),
            "look" => {
                let (pending, age) = (self.dispatcher.pending(), Time(self.dispatcher.oldest_age_ns(time)));
                let (unfinished, drained) =
                    (self.dispatcher.instances().unfinished(), self.dispatcher.is_drained());
                self.say(
                    time,
                    &format!("pending {pending}, oldest {age}, unfinished {unfinished}, drained {drained}"),
                );
                if self.dispatcher.is_bound() {
                    let retired: Vec<u32> = (0..self.dispatcher.instances().len() as u32)
                        .filter(|&id| self.dispatcher.is_retired(InstanceId(id)))
                        .collect();
                    let open = self.dispatcher.open_sequences();
                    self.say(time, &format!("open sequences {open}, retired {retired:?}"));
                }
            }
            other => panic!("unknown event {other:?}"),
        }
    }

    fn arrive(
        &mut self,
        time: Time,
        name: String,
        fields: &HashMap<String, String>,
        step: Option<SequenceStep>,
    ) {
        let id = RequestId(self.names.len() as u64);
        self.names.push(name.clone());
        self.ids.insert(name.clone(), id);
        let shape = fields.get("shape").map_or(0, |shape| shape.bytes().map(u128::from).sum());
        let mut info = RequestInfo::new(id, ShapeKey(shape), time);
        info.size = fields.get("size").map_or(1, |size| size.parse().expect("a size"));
        info.priority = fields.get("priority").map_or(0, |level| level.parse().expect("a level"));
        info.timeout_us = fields.get("timeout").map(|timeout| parse_ms(timeout).0 / 1_000);
        info.deadline = fields.get("deadline").map(|deadline| parse_ms(deadline));
        let correlation = step.as_ref().map(|step| step.correlation.clone());
        let answer = match step {
            Some(step) => self.dispatcher.on_sequence_arrival(info, step),
            None => self.dispatcher.on_arrival(info),
        };
        match answer {
            Ok(()) => {}
            Err(refusal) if self.dispatcher.is_bound() => {
                self.say(time, &format!("{name} refused: {}", refusal.words("m", correlation.as_ref())));
            }
            Err(refusal) => self.say(time, &format!("{name} refused: {refusal}")),
        }
    }

    fn poll(&mut self, now: Time) {
        let mut actions = std::mem::take(&mut self.actions);
        self.dispatcher.poll(now, &mut actions);
        if !actions.expired.is_empty() {
            self.say(now, &format!("{} expired", self.list(&actions.expired)));
        }
        for &(id, reason) in &actions.dropped {
            self.say(now, &format!("{} left: {reason}", self.names[id.0 as usize]));
        }
        for (instance, batch) in actions.batches() {
            let rows = self.dispatcher.rows(instance);
            let in_rows: Vec<RequestId> = rows.iter().filter_map(|row| row.request).collect();
            let what = if rows.is_empty() { self.list(batch) } else { self.list_rows(rows) };
            assert!(rows.is_empty() || in_rows == batch, "rows and batch differ");
            self.say(now, &format!("#{} runs {what}", instance.0));
        }
        if let Some(wake) = actions.wake {
            assert!(wake > now, "asked at {now} to be woken at {wake}");
            if self.wake != actions.wake {
                self.say(now, &format!("sleeps until {wake}"));
            }
        }
        self.wake = actions.wake;
        self.actions = actions;
    }

    fn finish(mut self) -> String {
        if self.dispatcher.pending() > 0 {
            let _ = writeln!(self.log, "at the end {} queued", self.dispatcher.pending());
        }
        self.log
    }

    fn list(&self, ids: &[RequestId]) -> String {
        let names: Vec<&str> = ids.iter().map(|id| self.names[id.0 as usize].as_str()).collect();
        match names.as_slice() {
            [first, .., last] if names.len() > 8 => format!("{first} to {last} ({})", names.len()),
            _ => names.join(" "),
        }
    }

    fn list_rows(&self, rows: &[Row]) -> String {
        let show = |row: &Row| {
            let slot = if self.is_oldest { format!("{}:", row.slot) } else { String::new() };
            let name = row.request.map_or("-", |id| &self.names[id.0 as usize]);
            format!("{slot}{name}{}{}", if row.start { "^" } else { "" }, if row.end { "$" } else { "" })
        };
        rows.iter().map(show).collect::<Vec<_>>().join(" ")
    }

    fn say(&mut self, time: Time, what: &str) {
        let _ = writeln!(self.log, "{:<7} {what}", time.to_string());
    }
}

/// `levels`, `level` and the `queue` policies.
fn policies(fields: &HashMap<String, String>) -> Policies {
    let number = |name: &str| fields.get(name).map_or(0, |value| value.parse().expect("a number"));
    let default = fields.get("queue").map(|text| policy(text)).unwrap_or_default();
    let by_level = fields.iter().filter_map(|(name, text)| {
        let level = name.strip_prefix("queue").filter(|level| !level.is_empty())?;
        Some((level.parse().expect("a level"), policy(text)))
    });
    Policies::new(number("levels"), number("level"), default, by_level).expect("valid policies")
}

/// Such as `delay,50ms,override,max=9`.
fn policy(text: &str) -> QueuePolicy {
    let mut policy = QueuePolicy::default();
    for word in text.split(',') {
        match word {
            "reject" => policy.timeout_action = TimeoutAction::Reject,
            "delay" => policy.timeout_action = TimeoutAction::Delay,
            "override" => policy.allow_timeout_override = true,
            word => match word.strip_prefix("max=") {
                Some(max) => policy.max_queue_size = max.parse().expect("a size"),
                None => policy.default_timeout_microseconds = parse_ms(word).0 / 1_000,
            },
        }
    }
    policy
}

/// The plain words and the `key=value` words.
fn split(text: &str) -> (Vec<String>, HashMap<String, String>) {
    let (mut words, mut fields) = (Vec::new(), HashMap::new());
    for word in text.split_whitespace() {
        match word.split_once('=') {
            Some((key, value)) => drop(fields.insert(key.to_owned(), value.to_owned())),
            None => words.push(word.to_owned()),
        }
    }
    (words, fields)
}

/// `A` is itself; `R1..R3` is R1, R2, R3.
fn names(word: &str) -> Vec<String> {
    let Some((first, last)) = word.split_once("..") else {
        return vec![word.to_owned()];
    };
    let stem = first.trim_end_matches(|c: char| c.is_ascii_digit());
    let number = |name: &str| name[stem.len()..].parse::<u32>().expect("a numbered name");
    (number(first)..=number(last)).map(|n| format!("{stem}{n}")).collect()
}

fn parse_ms(text: &str) -> Time {
    let ms = text.strip_suffix("ms").unwrap_or_else(|| panic!("{text:?} is not a time in ms"));
    Time::from_millis(ms.parse().expect("whole milliseconds"))
}
