use super::grammar::Grammar;

/// What comes of a flag that is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// It does what it says.
    Works,
    /// It is accepted with a warning: what it tunes is built differently here, or is not there, and no answer and no
    /// protection depends on it.
    None(&'static str),
    /// The server does not start: a deployment relies on what the flag does.
    Refused(&'static str),
}

/// One flag of the server: a row of the table that parsing, help and `docs/flags.md` come from.
#[derive(Debug, Clone, Copy)]
pub struct Flag {
    /// Without the dashes.
    pub name: &'static str,
    /// An older name, or the empty text.
    pub alias: &'static str,
    /// What its value looks like.
    pub grammar: Grammar,
    /// Its value where it is not given, or the empty text.
    pub default: &'static str,
    /// Its value where it is given without one, or the empty text where it needs one.
    pub alone: &'static str,
    /// Whether it may be given several times; otherwise the last one counts.
    pub repeats: bool,
    /// What comes of it.
    pub effect: Effect,
    /// Values of a flag without effect that ask for what is anyway: nothing is said of them.
    pub fine: &'static [&'static str],
    /// One or two sentences.
    pub help: &'static str,
}

impl Flag {
    /// A flag that does what it says.
    pub(super) const fn works(name: &'static str, grammar: Grammar, help: &'static str) -> Self {
        let effect = Effect::Works;
        Self { name, alias: "", grammar, default: "", alone: "", repeats: false, effect, fine: &[], help }
    }

    /// A flag that is accepted with a warning that says `why` it changes nothing.
    pub(super) const fn idle(
        name: &'static str,
        grammar: Grammar,
        help: &'static str,
        why: &'static str,
    ) -> Self {
        Self { effect: Effect::None(why), ..Self::works(name, grammar, help) }
    }

    /// A flag that ends the start, because of `why`.
    pub(super) const fn refused(
        name: &'static str,
        grammar: Grammar,
        help: &'static str,
        why: &'static str,
    ) -> Self {
        Self { effect: Effect::Refused(why), ..Self::works(name, grammar, help) }
    }

    pub(super) const fn or(self, default: &'static str) -> Self {
        Self { default, ..self }
    }

    pub(super) const fn alone(self, alone: &'static str) -> Self {
        Self { alone, ..self }
    }

    pub(super) const fn alias(self, alias: &'static str) -> Self {
        Self { alias, ..self }
    }

    pub(super) const fn repeats(self) -> Self {
        Self { repeats: true, ..self }
    }

    pub(super) const fn fine(self, fine: &'static [&'static str]) -> Self {
        Self { fine, ..self }
    }

    /// Whether nothing is to be said of `value`.
    pub(super) fn is_fine(&self, value: &str) -> bool {
        match (self.grammar, super::grammar::truth(value)) {
            (Grammar::Truth, given) => self.fine.iter().any(|fine| super::grammar::truth(fine) == given),
            _ => self.fine.iter().any(|fine| fine.eq_ignore_ascii_case(value)),
        }
    }
}
