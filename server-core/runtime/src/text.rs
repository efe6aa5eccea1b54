/// ", did you mean 'x'?" if one of the known names is near, else a list of them, else nothing.
pub(crate) fn did_you_mean<'a>(given: &str, known: impl Iterator<Item = &'a str>) -> String {
    let known: Vec<&str> = known.collect();
    let near = known.iter().map(|name| (strsim::damerau_levenshtein(given, name), *name)).min();
    match near {
        Some((distance, name)) if distance <= given.len().max(name.len()) / 3 => {
            format!(", did you mean '{name}'?")
        }
        Some(_) if known.len() <= 12 => format!(", known are '{}'", known.join("', '")),
        _ => String::new(),
    }
}
