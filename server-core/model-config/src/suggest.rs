//! Names as messages show them, and the name that was probably meant.

/// Longer names are typed by nobody: they get no suggestion, whose cost grows with the square of the length.
const LONGEST: usize = 64;

/// ", did you mean 'x'?" if one of the known names is near, else nothing.
pub(crate) fn did_you_mean<'a>(given: &str, known: impl Iterator<Item = &'a str>) -> String {
    if given.len() > LONGEST {
        return String::new();
    }
    let lower = given.to_ascii_lowercase();
    let distance = |name: &str| strsim::damerau_levenshtein(&lower, &name.to_ascii_lowercase());
    let known: Vec<&str> = known.collect();
    // A beginning of one name only is taken for that name.
    let mut begun = known.iter().filter(|name| lower.len() >= 4 && name.starts_with(&lower));
    if let (Some(name), None) = (begun.next(), begun.next()) {
        return format!(", did you mean '{name}'?");
    }
    match known.into_iter().map(|name| (distance(name), name)).min() {
        Some((distance, name)) if distance <= given.len().max(name.len()) / 3 => {
            format!(", did you mean '{name}'?")
        }
        _ => String::new(),
    }
}

/// A name cut to a length that fits a message.
pub(crate) fn shown(name: &str) -> String {
    match name.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", &name[..end]),
        None => name.to_owned(),
    }
}
