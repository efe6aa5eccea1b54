//! Which models need which: the order in which they are loaded, and who is touched by a change. Pure.

use std::collections::{BTreeMap, BTreeSet};

/// For each ensemble the models of its steps. What is no key needs nobody.
pub(crate) type Needs = BTreeMap<String, BTreeSet<String>>;

/// Hands out models, each after those that it needs.
#[derive(Debug)]
pub(crate) struct Order {
    /// Those that are not handed out, with what they still wait for.
    waiting: Needs,
}

impl Order {
    /// For all keys of `needs`; what is not among them is not waited for. There must be no circle.
    pub(crate) fn new(mut needs: Needs) -> Self {
        let names: BTreeSet<String> = needs.keys().cloned().collect();
        needs.values_mut().for_each(|of| of.retain(|name| names.contains(name)));
        Self { waiting: needs }
    }

    /// One that waits for nobody.
    pub(crate) fn take(&mut self) -> Option<String> {
        let name = self.waiting.iter().find(|(_, needs)| needs.is_empty())?.0.clone();
        self.waiting.remove(&name);
        Some(name)
    }

    /// All have been handed out.
    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// One that was handed out has been loaded, or has failed.
    pub(crate) fn done(&mut self, name: &str) {
        for needs in self.waiting.values_mut() {
            needs.remove(name);
        }
    }
}

/// For each model that needs itself, by whatever way, that way.
pub(crate) fn circles(needs: &Needs) -> BTreeMap<String, Vec<String>> {
    needs.keys().filter_map(|name| Some((name.clone(), way_back(needs, name)?))).collect()
}

/// A shortest way from a model over its steps to itself.
fn way_back(needs: &Needs, start: &str) -> Option<Vec<String>> {
    let mut seen = BTreeSet::new();
    let mut ways = vec![vec![start.to_owned()]];
    while !ways.is_empty() {
        let mut longer = Vec::new();
        for way in ways {
            for next in way.last().and_then(|last| needs.get(last)).into_iter().flatten() {
                let mut way = way.clone();
                way.push(next.clone());
                if next == start {
                    return Some(way);
                }
                if seen.insert(next.clone()) {
                    longer.push(way);
                }
            }
        }
        ways = longer;
    }
    None
}

/// All that need one of `models`, by whatever way; not those themselves.
pub(crate) fn dependents(needs: &Needs, models: &BTreeSet<String>) -> BTreeSet<String> {
    let mut touched = models.clone();
    loop {
        let more: Vec<&String> = needs
            .iter()
            .filter(|(name, of)| !touched.contains(*name) && !of.is_disjoint(&touched))
            .map(|(name, _)| name)
            .collect();
        if more.is_empty() {
            return touched.difference(models).cloned().collect();
        }
        touched.extend(more.into_iter().cloned());
    }
}

/// The models that go with `model`: those that it needs, by whatever way, that nobody asked for and nobody else needs.
pub(crate) fn orphans(needs: &Needs, asked: &BTreeSet<String>, model: &str) -> BTreeSet<String> {
    let mut gone = BTreeSet::from([model.to_owned()]);
    loop {
        let needed = |name: &String| needs.iter().any(|(user, of)| !gone.contains(user) && of.contains(name));
        let below = gone.iter().filter_map(|name| needs.get(name)).flatten();
        let more: Vec<String> = below
            .filter(|name| !gone.contains(*name) && !asked.contains(*name) && !needed(name))
            .cloned()
            .collect();
        if more.is_empty() {
            gone.remove(model);
            return gone;
        }
        gone.extend(more);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(names: &str) -> BTreeSet<String> {
        names.split_whitespace().map(str::to_owned).collect()
    }

    /// `e:a b` needs a and b.
    fn needs(lines: &[&str]) -> Needs {
        lines
            .iter()
            .filter_map(|line| line.split_once(':'))
            .map(|(name, of)| (name.to_owned(), set(of)))
            .collect()
    }

    #[test]
    fn steps_come_before_ensembles() {
        let mut order = Order::new(needs(&["a:", "e:a b x", "b:", "f:e"]));
        let (first, second) = (order.take(), order.take());
        assert_eq!((first.as_deref(), second.as_deref(), order.take()), (Some("a"), Some("b"), None));
        order.done("a");
        assert_eq!(order.take(), None);
        order.done("b");
        assert_eq!(order.take().as_deref(), Some("e"), "x is not waited for: it is not in the group");
        assert!(!order.is_empty());
        order.done("e");
        assert_eq!(order.take().as_deref(), Some("f"));
        assert!(order.is_empty());
    }

    #[test]
    fn circles_are_named() {
        let found = circles(&needs(&["a:b", "b:c d", "c:a", "d:", "e:a", "f:f"]));
        assert_eq!(found.keys().cloned().collect::<BTreeSet<_>>(), set("a b c f"), "e only leads into one");
        assert_eq!(found["a"], ["a", "b", "c", "a"]);
        assert_eq!(found["f"], ["f", "f"]);
    }

    #[test]
    fn a_change_touches_all_above() {
        let needs = needs(&["e:a b", "f:e", "g:b"]);
        assert_eq!(dependents(&needs, &set("a")), set("e f"));
        assert_eq!(dependents(&needs, &set("b e")), set("f g"));
        assert_eq!(dependents(&needs, &set("f")), set(""));
    }

    #[test]
    fn what_only_one_ensemble_needs_goes_with_it() {
        let needs = needs(&["e:a b c", "f:c", "b:x y", "g:y"]);
        assert_eq!(orphans(&needs, &set("e f g"), "e"), set("a b x"), "c and y have other users");
        assert_eq!(orphans(&needs, &set("e a b"), "e"), set(""), "they were asked for; c is f's too");
        assert_eq!(orphans(&needs, &set("e f"), "a"), set(""));
    }
}
