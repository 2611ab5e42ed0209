//! Texts for terminals and logs.

/// The text with its control characters escaped: names of files are anybody's choice, and must neither look like lines of
/// their own nor steer a terminal.
pub(crate) fn printable(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        if character.is_control() {
            escaped.extend(character.escape_default());
        } else {
            escaped.push(character);
        }
    }
    escaped
}
