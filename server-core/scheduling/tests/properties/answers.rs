//! Answers in random order against a list that is sorted at the end.

use proptest::prelude::*;
use trireme_scheduling::AnswerOrder;

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    /// Every request arrives, gives a number of answers and is done, all interleaved at random: everything is
    /// released, in the order of arrivals, and as early as possible.
    #[test]
    fn answers_leave_in_the_order_of_arrivals_and_none_waits_longer(
        lengths in prop::collection::vec((0..4usize, any::<bool>()), 0..12),
        choices in prop::collection::vec(any::<prop::sample::Index>(), 100),
    ) {
        let mut order = AnswerOrder::new();
        let mut turns = Vec::new();
        let mut given = vec![0; lengths.len()];
        let mut done = vec![false; lengths.len()];
        let mut released = Vec::new();
        let mut choices = choices.iter().cycle();
        while !done.iter().all(|done| *done) {
            // Those that may act: one that arrives, or one that has arrived and is not done.
            let mut able: Vec<usize> = (0..turns.len()).filter(|&n| !done[n]).collect();
            able.extend((turns.len() < lengths.len()).then_some(turns.len()));
            let n = able[choices.next().unwrap().index(able.len())];
            let Some(&turn) = turns.get(n) else {
                turns.push(order.on_arrival());
                continue;
            };
            let (len, last_is_marked) = lengths[n];
            if given[n] < len {
                given[n] += 1;
                done[n] = last_is_marked && given[n] == len;
                prop_assert!(order.on_answer(turn, (n, given[n]), done[n], &mut released));
            } else {
                done[n] = true;
                prop_assert!(order.on_done(turn, &mut released));
            }
            let open = (0..turns.len()).find(|&n| !done[n]).unwrap_or(turns.len());
            let expected: Vec<_> = (0..turns.len().min(open + 1))
                .flat_map(|n| (1..=given[n]).map(move |answer| (n, answer)))
                .collect();
            let said: Vec<_> = released.iter().map(|(_, answer)| *answer).collect();
            prop_assert_eq!(said, expected);
        }
        prop_assert!(order.is_empty());
        prop_assert_eq!(order.held(), 0);
    }
}
