//! What the players of the demo are called, and who is friends with whom. Pure.

const FIRST: [&str; 16] = [
    "amber", "brisk", "clever", "dusty", "eager", "frosty", "golden", "humble", "ivory", "jolly", "keen",
    "lucky", "mellow", "nimble", "quiet", "swift",
];
const SECOND: [&str; 16] = [
    "otter", "falcon", "badger", "heron", "lynx", "marten", "raven", "stoat", "wolf", "hare", "finch",
    "viper", "bison", "crane", "gecko", "moose",
];

/// The name of a player; each number has another one.
#[must_use]
pub fn name_of(number: u32) -> String {
    let word = |words: &'static [&'static str; 16], at: u32| {
        words.get(usize::try_from(at % 16).unwrap_or_default()).copied().unwrap_or_default()
    };
    let (first, second) = (word(&FIRST, number), word(&SECOND, number / 16));
    match number / 256 {
        0 => format!("{first}-{second}"),
        again => format!("{first}-{second}-{}", again + 1),
    }
}

/// Whom a player watches: the next few, and some further away, so that news travels everywhere.
pub(super) fn friends_of(number: u32, players: u32) -> Vec<u32> {
    let steps = [1, 2, 3, 4, 5, 7, 11, 17, 29, 47, 76, 123];
    let mut friends: Vec<u32> = steps.iter().map(|step| (number + step) % players.max(1)).collect();
    friends.retain(|friend| *friend != number);
    friends.sort_unstable();
    friends.dedup();
    friends
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_player_has_a_name_of_her_own() {
        let mut names: Vec<String> = (0..5_000).map(name_of).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), 5_000);
        assert_eq!((name_of(0), name_of(257)), ("amber-otter".to_owned(), "brisk-otter-2".to_owned()));
    }

    #[test]
    fn nobody_is_her_own_friend_however_few_there_are() {
        for players in 1..200 {
            for number in 0..players {
                let friends = friends_of(number, players);
                assert!(!friends.contains(&number) && friends.iter().all(|friend| *friend < players));
            }
        }
        assert_eq!(friends_of(0, 200).len(), 12);
    }
}
