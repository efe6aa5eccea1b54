//! Random models under random arrivals, cancellations, deadlines and instance events on virtual time. In every world:
//! each request leaves exactly once, no batch is over the limit or mixes shapes, nobody is overtaken, no expired request
//! runs or is kept, instances hold no more than they declared, wake-ups lie in the future, and the queue empties.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

mod answers;
mod closed_loop;
mod naive;
mod naive_sequences;
mod sequences;
mod world;

use proptest::prelude::*;
use trireme_scheduling::{Direct, Dynamic};

use naive::Naive;
use world::{World, events, setup};

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_dynamic_batcher_keeps_its_promises(setup in setup(), events in events()) {
        let mut world = World::new(&setup, Dynamic::new(setup.config.clone()), false);
        events.iter().for_each(|event| drop(world.apply(event)));
        world.drain();
    }

    #[test]
    fn the_direct_scheduler_keeps_its_promises(setup in setup(), events in events()) {
        let mut world = World::new(&setup, Direct::new(), true);
        events.iter().for_each(|event| drop(world.apply(event)));
        world.drain();
    }

    #[test]
    fn the_kept_walk_answers_as_a_walk_from_scratch(setup in setup(), events in events()) {
        let mut fast = World::new(&setup, Dynamic::new(setup.config.clone()), false);
        let mut plain = World::new(&setup, Naive::new(setup.config.clone()), false);
        for (step, event) in events.iter().enumerate() {
            prop_assert_eq!(fast.apply(event), plain.apply(event), "step {}: {:?}", step, event);
        }
    }

    #[test]
    fn an_instance_that_asks_is_told_what_a_poll_says(mut setup in setup(), events in events()) {
        setup.instances = 1;
        let mut push = World::new(&setup, Dynamic::new(setup.config.clone()), false);
        let mut pull = World::new(&setup, Dynamic::new(setup.config.clone()), false);
        pull.asks_while_free = Some(true);
        for (step, event) in events.iter().enumerate() {
            prop_assert_eq!(push.apply(event), pull.apply(event), "step {}: {:?}", step, event);
        }
    }

    #[test]
    fn two_runs_of_the_same_events_are_the_same(setup in setup(), events in events()) {
        let mut one = World::new(&setup, Dynamic::new(setup.config.clone()), false);
        let mut two = World::new(&setup, Dynamic::new(setup.config.clone()), false);
        for event in &events {
            prop_assert_eq!(one.apply(event), two.apply(event));
        }
    }
}
