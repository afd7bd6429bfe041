//! The example file: every option with its text and its default.

use std::fmt::Write;

use super::{
    option::{Section, Shape},
    sections::{
        AppServices, Federation, Listener, Log, Notices, Presence, RateLimits, Registration, Rooms,
        Server, Store, Support, Turn, WellKnown,
    },
};

const HEAD: &str = "\
# Exeunt's configuration. Printed by `exeunt config example`.
#
# A line that starts with #key shows a default, or an example of what has none. Each option can be
# set in the environment instead, as EXEUNT__SECTION__KEY: EXEUNT__SERVER__NAME=example.org,
# EXEUNT__LISTENERS__0__SERVES=client,federation.
";

/// The text of the example file.
pub fn example() -> String {
    let mut text = HEAD.to_owned();
    section::<Server>(&mut text, "[server]");
    section::<Store>(&mut text, "[store]");
    section::<Listener>(&mut text, "[[listeners]]");
    section::<Federation>(&mut text, "[federation]");
    section::<Registration>(&mut text, "[registration]");
    section::<AppServices>(&mut text, "[app_services]");
    section::<RateLimits>(&mut text, "[rate_limits]");
    section::<Rooms>(&mut text, "[rooms]");
    section::<Presence>(&mut text, "[presence]");
    section::<Notices>(&mut text, "[notices]");
    section::<Support>(&mut text, "[support]");
    section::<Turn>(&mut text, "[turn]");
    section::<Log>(&mut text, "[log]");
    section::<WellKnown>(&mut text, "[well_known]");
    text
}

fn section<S: Section>(text: &mut String, header: &str) {
    text.push('\n');
    comment(text, S::ABOUT);
    text.push_str(header);
    text.push('\n');
    for option in S::OPTIONS {
        comment(text, option.doc);
        if matches!(option.shape, Shape::Required(_)) {
            text.push_str("# Required: uncomment the line and make it yours.\n");
        }
        writeln!(text, "#{} = {}", option.key, option.shape.shown())
            .expect("a string takes everything");
    }
}

fn comment(text: &mut String, lines: &[&str]) {
    for line in lines {
        writeln!(text, "# {}", line.trim()).expect("a string takes everything");
    }
}
