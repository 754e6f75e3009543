//! `hearth demo`: players who live on a server in the same process, so that one command shows what Hearth does. `cli`
//! starts it, `app` runs it as company of the server. Speaks to the server only as any client does, over the wire;
//! keeps nothing of what it hears but a few numbers.

mod bot;
mod figures;
mod names;
mod party;

use std::io::Write as _;
use std::sync::Arc;

use crate::app::{Addresses, Company};
use crate::service::console;
use crate::tasks::Tasks;
use bot::Bot;
use figures::Figures;
pub use names::name_of;

/// Players unless told otherwise.
pub const PLAYERS: u32 = 200;
/// Most players: each takes two descriptors of one process.
pub const PLAYERS_MAX: u32 = 5_000;

/// Gives a player's token, good for these rooms.
pub type Tokens = Arc<dyn Fn(&str, Vec<String>) -> String + Send + Sync>;

/// What the demo is made of.
pub struct Demo {
    /// How many players.
    pub players: u32,
    /// A service key of the server, to be shown.
    pub service_key: String,
    /// How they log in.
    pub tokens: Tokens,
    /// Whether `dev:<player>` is a good token.
    pub takes_any_name: bool,
    /// Whether the store goes with the demo.
    pub leaves_nothing: bool,
}

impl Demo {
    /// The players, as company of a server.
    #[must_use]
    pub fn company(self) -> Company {
        Box::new(move |addresses, _, tasks| {
            // Who closed our standard output does not want to know.
            let _ = writeln!(std::io::stdout(), "{}", self.where_to_look(addresses));
            self.start(addresses, tasks);
        })
    }

    fn where_to_look(&self, Addresses { clients, services }: &Addresses) -> String {
        let Self { players, service_key, .. } = self;
        let token = if self.takes_any_name {
            "the token dev:<your name>.".to_owned()
        } else {
            format!("this token, good for an hour:\n\n  {}\n", (self.tokens)("you", Vec::new()))
        };
        let end = if self.leaves_nothing {
            "leaves nothing behind"
        } else {
            "leaves the players in the store that you named"
        };
        let ask = format!("curl -s -H \"Authorization: Bearer {service_key}\" {services}/v1");
        format!(
            "\n{players} players live here: they log in and out, play matches in parties, chat,\n\
             watch their friends, lose their links and come back. See all of it in a browser,\n\
             or on a terminal (in the sources `hearth` is `cargo run --release --`):\n\n  {}\n  \
             HEARTH_SERVICE_KEY={service_key} hearth top {services}\n\n\
             Ask for one of them, and for all:\n\n  {ask}/players/{}\n  {ask}/stats\n\n\
             Be one yourself: connect to {clients}\n\
             and log in with {token}\n\
             Ctrl-C ends it and {end}.\n",
            console::link(services, service_key),
            name_of(0),
        )
    }

    fn start(self, addresses: &Addresses, tasks: &Tasks) {
        let figures = Arc::new(Figures::default());
        for number in 0..self.players {
            let bot = Bot::new(
                number,
                self.players,
                addresses.clients.clone(),
                Arc::clone(&self.tokens),
                Arc::clone(&figures),
            );
            tasks.spawn("demo player", bot.live(tasks.clone()));
        }
        tasks.spawn("demo figures", figures::tell(figures, tasks.clone()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(takes_any_name: bool, leaves_nothing: bool) -> String {
        let tokens: Tokens = Arc::new(|player, _| format!("t0ken-of-{player}"));
        let demo = Demo { players: 7, service_key: "k3y".into(), tokens, takes_any_name, leaves_nothing };
        demo.where_to_look(&Addresses {
            clients: "ws://127.0.0.1:1/v1/connect".into(),
            services: "http://127.0.0.1:2".into(),
        })
    }

    #[test]
    fn it_says_where_to_look_in_calls_that_can_be_copied() {
        let told = told(true, true);
        for line in [
            &format!(
                "  curl -s -H \"Authorization: Bearer k3y\" http://127.0.0.1:2/v1/players/{}",
                name_of(0)
            ),
            "  curl -s -H \"Authorization: Bearer k3y\" http://127.0.0.1:2/v1/stats",
            "  http://127.0.0.1:2/console#key=k3y",
            "  HEARTH_SERVICE_KEY=k3y hearth top http://127.0.0.1:2",
            "or on a terminal (in the sources `hearth` is `cargo run --release --`):",
        ] {
            assert!(told.lines().any(|told| told == line), "{line} is not in\n{told}");
        }
        assert!(told.contains("7 players") && told.contains("ws://127.0.0.1:1/v1/connect"), "{told}");
    }

    #[test]
    fn it_says_what_is_true_of_its_tokens_and_its_store() {
        let own = told(true, true);
        assert!(own.contains("dev:<your name>") && own.contains("leaves nothing behind"), "{own}");
        let given = told(false, false);
        assert!(given.contains("\n  t0ken-of-you\n") && !given.contains("dev:"), "{given}");
        for line in own.lines().chain(given.lines()).filter(|line| !line.starts_with(' ')) {
            assert!(line.len() <= 80, "{line} is too long");
        }
        assert!(given.contains("the store that you named") && !given.contains("nothing behind"), "{given}");
    }
}
