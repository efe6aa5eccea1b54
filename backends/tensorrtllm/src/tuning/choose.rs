//! Which of several was fastest.

/// The candidate with the fastest run of all, and that run's time. Times that no clock gives (zero, negative, no number) do
/// not count; of equals the first stays.
pub fn fastest<T: Copy>(runs: impl IntoIterator<Item = (T, f32)>) -> Option<(T, f32)> {
    let mut best: Option<(T, f32)> = None;
    for (candidate, time) in runs {
        if time.is_finite() && time > 0.0 && best.is_none_or(|(_, least)| time < least) {
            best = Some((candidate, time));
        }
    }
    best
}

/// Whether the two fastest runs, in microseconds, of each candidate that might have won agree: within a tenth, or within the
/// microsecond that a GPU's clock may be off. Where they do not, the GPU had other work meanwhile. One whose fastest run is more than
/// a quarter above the fastest of all is out whatever its other runs say.
pub fn steady<T: Copy + PartialEq>(runs: &[(T, f32)]) -> bool {
    let Some((_, least)) = fastest(runs.iter().copied()) else { return true };
    runs.iter().all(|(candidate, _)| {
        let own = runs.iter().filter(|(other, time)| other == candidate && time.is_finite() && *time > 0.0);
        let mut own: Vec<f32> = own.map(|(_, time)| *time).collect();
        own.sort_unstable_by(f32::total_cmp);
        match own[..] {
            [best, second, ..] => best > least * 1.25 || second <= (best * 1.1).max(best + 1.0),
            _ => true,
        }
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_no_time_does_not_win() {
        assert_eq!(
            fastest([('a', f32::NAN), ('b', 2.0), ('c', 0.0), ('d', -1.0), ('e', 2.0)]),
            Some(('b', 2.0))
        );
        assert_eq!(fastest([('a', f32::INFINITY)]), None);
    }

    #[test]
    fn a_candidate_whose_two_best_runs_differ_was_disturbed() {
        let runs = [('a', 100.0), ('b', 120.0), ('a', 109.0), ('b', 500.0), ('a', 900.0), ('b', 131.0)];
        assert!(steady(&runs));
        assert!(!steady(&runs[..4]), "the second of b");
        assert!(steady(&[('a', 100.0), ('b', 126.0), ('a', 109.0), ('b', 500.0)]), "b could not have won");
        assert!(!steady(&[('a', 100.0), ('a', 112.0)]));
        assert!(steady(&[('a', 4.0), ('a', 4.9), ('b', f32::NAN), ('b', 4.0)]));
        assert!(steady::<char>(&[]));
    }

    proptest! {
        #[test]
        fn nothing_that_was_slower_is_chosen(runs in prop::collection::vec((0usize..6, prop::num::f32::ANY), 0..60)) {
            let valid = |time: &f32| time.is_finite() && *time > 0.0;
            let best = |of: usize| {
                runs.iter().filter(|(c, t)| *c == of && valid(t)).map(|(_, t)| *t).fold(f32::INFINITY, f32::min)
            };
            match fastest(runs.iter().copied()) {
                Some((chosen, time)) => {
                    prop_assert_eq!(time, best(chosen));
                    for other in 0..6 {
                        prop_assert!(best(other) >= time);
                    }
                }
                None => prop_assert!(runs.iter().all(|(_, t)| !valid(t))),
            }
        }
    }
}
