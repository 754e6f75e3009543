//! The rulebook as a test: arrows between rooms, names, file heads, Lua headers, leftovers. Run by everyone with
//! `cargo test`. Each check is a pure function over a file's text, and is itself shown to find a planted fault.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a broken check must fail the test"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// One text file of the repository.
struct Source {
    /// From the repository's root, with `/`.
    path: String,
    text: String,
}

impl Source {
    fn new(path: &str, text: &str) -> Self {
        Self { path: path.to_owned(), text: text.to_owned() }
    }

    fn is_rust(&self) -> bool {
        self.path.ends_with(".rs")
    }

    /// The room of a file in `src/`; the library's own root belongs to none.
    fn room(&self) -> Option<&str> {
        let inside = self.path.strip_prefix("src/").filter(|inside| *inside != "lib.rs")?;
        inside.split('/').next().map(|first| first.strip_suffix(".rs").unwrap_or(first))
    }

    /// The modules from the crate's root down to this file.
    fn modules(&self) -> Vec<String> {
        let inside = self.path.strip_prefix("src/").unwrap().strip_suffix(".rs").unwrap();
        inside.split('/').filter(|part| *part != "mod").map(str::to_owned).collect()
    }
}

// === Reading Rust ===

/// The code alone, line by line as it was: comments and literals are blanked.
fn code(text: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    let mut out: Vec<char> = Vec::with_capacity(chars.len());
    let mut at = 0;
    while at < chars.len() {
        let end = literal_end(&chars, at);
        if end > at {
            out.extend(chars[at..end].iter().map(|c| if *c == '\n' { '\n' } else { ' ' }));
            at = end;
        } else {
            out.push(chars[at]);
            at += 1;
        }
    }
    out.into_iter().collect()
}

/// Where the comment or literal that begins at `at` ends; `at` itself if none begins there.
fn literal_end(chars: &[char], at: usize) -> usize {
    let rest = &chars[at..];
    let starts = |text: &str| rest.len() >= text.len() && text.chars().zip(rest).all(|(a, b)| a == *b);
    let find = |from: usize, text: &str| {
        let text: Vec<char> = text.chars().collect();
        (from..chars.len()).find(|i| chars[*i..].starts_with(&text)).map_or(chars.len(), |i| i + text.len())
    };
    let in_word = at > 0 && (chars[at - 1].is_alphanumeric() || chars[at - 1] == '_');
    if starts("//") {
        return find(at, "\n") - usize::from(find(at, "\n") < chars.len());
    }
    if starts("/*") {
        return find(at + 2, "*/");
    }
    if !in_word && (starts("r\"") || starts("r#") || starts("br\"") || starts("br#")) {
        let from = if rest[0] == 'b' { at + 2 } else { at + 1 };
        let hashes = chars[from..].iter().take_while(|c| **c == '#').count();
        if chars.get(from + hashes) == Some(&'"') {
            return find(from + hashes + 1, &format!("\"{}", "#".repeat(hashes)));
        }
        return at;
    }
    match rest[0] {
        '"' => quoted_end(chars, at, '"'),
        // A lifetime has no closing quote.
        '\'' if rest.get(1) == Some(&'\\') || rest.get(2) == Some(&'\'') => quoted_end(chars, at, '\''),
        _ => at,
    }
}

fn quoted_end(chars: &[char], at: usize, quote: char) -> usize {
    let mut i = at + 1;
    while i < chars.len() && chars[i] != quote {
        i += if chars[i] == '\\' { 2 } else { 1 };
    }
    (i + 1).min(chars.len())
}

/// The code without modules marked `#[cfg(test)]`: a test may stand things together as it likes.
fn without_tests(code: &str) -> String {
    let mut out = code.to_owned();
    while let Some(start) = out.find("#[cfg(test)]") {
        let item = &out[start..];
        let open = item.find('{').unwrap_or(item.len());
        let end = match item.find(';') {
            Some(semicolon) if semicolon < open => semicolon + 1,
            _ => open + block_end(&item[open..]),
        };
        out.replace_range(start..start + end, "");
    }
    out
}

/// How long the block is that begins with the text's first character, a `{`.
fn block_end(text: &str) -> usize {
    let mut depth = 0_usize;
    for (at, c) in text.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth <= 1 => return at + 1,
            '}' => depth -= 1,
            _ => {}
        }
    }
    text.len()
}

/// Every path that begins with one of `roots`, groups spelled out: `use crate::{a, b::c}` names `crate::a` and
/// `crate::b::c`.
fn paths(code: &str, roots: &[&str]) -> BTreeSet<Vec<String>> {
    let tokens = tokens(code);
    let mut found = BTreeSet::new();
    for (at, token) in tokens.iter().enumerate() {
        let follows_path = at > 0 && (tokens[at - 1] == "::" || tokens[at - 1] == "$");
        if roots.contains(&token.as_str()) && !follows_path && tokens.get(at + 1).is_some_and(|t| t == "::") {
            tree(&tokens, at, &mut Vec::new(), &mut found);
        }
    }
    found
}

fn tokens(code: &str) -> Vec<String> {
    let mut out: Vec<String> = Vec::new();
    let mut chars = code.chars().peekable();
    while let Some(c) = chars.next() {
        if c.is_alphanumeric() || c == '_' {
            let mut word = c.to_string();
            while let Some(c) = chars.next_if(|c| c.is_alphanumeric() || *c == '_') {
                word.push(c);
            }
            out.push(word);
        } else if c == ':' && chars.next_if_eq(&':').is_some() {
            out.push("::".to_owned());
        } else if !c.is_whitespace() {
            out.push(c.to_string());
        }
    }
    out
}

/// Reads one path or group from `at`; where it ends.
fn tree(
    tokens: &[String],
    mut at: usize,
    prefix: &mut Vec<String>,
    found: &mut BTreeSet<Vec<String>>,
) -> usize {
    let depth = prefix.len();
    loop {
        let token = tokens.get(at).map_or("", String::as_str);
        if token == "{" {
            at += 1;
            while tokens.get(at).is_some_and(|token| token != "}") {
                let next = tree(tokens, at, prefix, found);
                at = if next == at || tokens.get(next).is_some_and(|t| t == ",") { next + 1 } else { next };
            }
            at += 1;
            break;
        }
        if !token.starts_with(|c: char| c.is_alphanumeric() || c == '_') {
            found.insert(prefix.clone());
            break;
        }
        prefix.push(token.to_owned());
        at += 1;
        if tokens.get(at).is_none_or(|token| token != "::") {
            found.insert(prefix.clone());
            // `a as b` within a group.
            at += if tokens.get(at).is_some_and(|token| token == "as") { 2 } else { 0 };
            break;
        }
        at += 1;
    }
    prefix.truncate(depth);
    at
}

// === Arrows ===

/// The table of README: room to what it may use.
fn arrows(readme: &str) -> BTreeMap<String, Vec<String>> {
    let section = readme.split("\n### Arrows\n").nth(1).expect("README has a section `### Arrows`");
    let rows =
        section.lines().skip_while(|line| !line.starts_with('|')).take_while(|line| line.starts_with('|'));
    let mut table: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for row in rows.skip(2) {
        let cells: Vec<&str> =
            row.trim_matches('|').split('|').map(|cell| cell.trim().trim_matches('`')).collect();
        let uses = cells[1].split(',').map(|name| name.trim().trim_matches('`').to_owned());
        table.insert(cells[0].to_owned(), uses.filter(|name| !name.is_empty()).collect());
    }
    let base = table.get("base").cloned().unwrap_or_default();
    for uses in table.values_mut() {
        if uses.iter().any(|name| name == "base") {
            uses.extend(base.clone());
        }
    }
    table
}

/// Paths from the crate's root that leave the room of `source`.
fn leaving(source: &Source, rooms: &BTreeSet<String>) -> BTreeSet<Vec<String>> {
    let room = source.room().unwrap();
    let code = without_tests(&code(&source.text));
    let mut found: BTreeSet<Vec<String>> = paths(&code, &["crate", "hearth"])
        .into_iter()
        .filter_map(|path| path.get(1..).filter(|inner| !inner.is_empty()).map(<[String]>::to_vec))
        .collect();
    let depth = source.modules().len();
    for path in paths(&code, &["super"]) {
        let ups = path.iter().take_while(|part| *part == "super").count();
        if ups >= depth && path.get(ups).is_some_and(|name| rooms.contains(name)) {
            found.insert(path[ups..].to_vec());
        }
    }
    found.extend(paths(&code, &["protocol"]));
    found.retain(|path| path[0] != room && (rooms.contains(&path[0]) || path[0] == "protocol"));
    found
}

fn check_arrows(sources: &[Source], readme: &str) -> Vec<String> {
    let table = arrows(readme);
    let rooms: BTreeSet<String> = sources.iter().filter_map(Source::room).map(str::to_owned).collect();
    let mut faults = Vec::new();
    for source in sources.iter().filter(|source| source.is_rust() && !is_test(source)) {
        let Some(room) = source.room() else { continue };
        let Some(may) = table.get(room) else {
            faults.push(format!("{}: the room {room} has no row in README's table of arrows", source.path));
            continue;
        };
        for path in leaving(source, &rooms) {
            let allowed = may.iter().any(|entry| {
                let entry: Vec<&str> = entry.split("::").collect();
                entry == ["all"] || path.len() >= entry.len() && path.iter().zip(&entry).all(|(a, b)| a == b)
            });
            if !allowed {
                faults.push(format!("{}: {room} must not use {}", source.path, path.join("::")));
            }
        }
    }
    faults
}

/// Whether a file of `src/` is only built for tests.
fn is_test(source: &Source) -> bool {
    source.path.ends_with("/tests.rs") || source.path.contains("/tests/")
}

// === What a file must not hold ===

/// Words put together here, so that this file does not find itself.
fn banned_words() -> Vec<String> {
    [("TO", "DO"), ("FIX", "ME"), ("XX", "X"), ("db", "g!")].iter().map(|(a, b)| format!("{a}{b}")).collect()
}

fn check_leftovers(source: &Source) -> Vec<String> {
    let mut faults = Vec::new();
    for (number, line) in source.text.lines().enumerate() {
        for word in banned_words() {
            let whole = line.match_indices(&word).any(|(at, found)| {
                let before = line[..at].chars().next_back();
                let after = line[at + found.len()..].chars().next();
                !before.is_some_and(char::is_alphanumeric) && !after.is_some_and(char::is_alphanumeric)
            });
            if whole {
                faults.push(format!("{}:{}: a leftover {word}", source.path, number + 1));
            }
        }
    }
    faults
}

fn check_machine_paths(source: &Source) -> Vec<String> {
    let folders = ["home", "root", "Users", "work"].map(|name| format!("/{name}/"));
    let mut faults = Vec::new();
    for (number, line) in source.text.lines().enumerate() {
        for folder in &folders {
            let absolute = line.match_indices(folder.as_str()).any(|(at, _)| {
                let before = line[..at].chars().next_back();
                !before.is_some_and(|c| c.is_alphanumeric() || "._-/}>)".contains(c))
            });
            if absolute {
                faults.push(format!("{}:{}: a path of one machine: {folder}", source.path, number + 1));
            }
        }
    }
    faults
}

fn check_spawn(source: &Source) -> Vec<String> {
    if !source.path.starts_with("src/") || source.path == "src/tasks.rs" || is_test(source) {
        return Vec::new();
    }
    let spawns = |path: &&Vec<String>| {
        path.last().is_some_and(|last| last == "spawn" || last == "spawn_local")
            && path.iter().all(|part| ["tokio", "task", "spawn", "spawn_local"].contains(&part.as_str()))
    };
    let code = without_tests(&code(&source.text));
    paths(&code, &["tokio", "task"])
        .iter()
        .filter(spawns)
        .map(|path| format!("{}: {} outside tasks.rs", source.path, path.join("::")))
        .collect()
}

fn check_environment(source: &Source) -> Vec<String> {
    let outside = source.path.starts_with("src/") && source.room() != Some("config") && !is_test(source);
    let code = without_tests(&code(&source.text));
    let reads = |path: &Vec<String>| {
        path.iter().any(|part| part == "env") && path.last().is_some_and(|last| last.starts_with("var"))
    };
    if outside && paths(&code, &["std", "env"]).iter().any(reads) {
        return vec![format!("{}: reads the environment, which is config's", source.path)];
    }
    Vec::new()
}

/// Every event of the log says what was being done.
fn check_events(source: &Source) -> Vec<String> {
    if !source.is_rust() || !source.path.starts_with("src/") || is_test(source) {
        return Vec::new();
    }
    let code = without_tests(&code(&source.text));
    let mut faults = Vec::new();
    for level in ["trace", "debug", "info", "warn", "error"] {
        for (at, found) in code.match_indices(&format!("tracing::{level}!(")) {
            let mut open = 1;
            let rest = code[at + found.len()..].chars();
            let event: String = rest
                .take_while(|c| {
                    open += i32::from(*c == '(') - i32::from(*c == ')');
                    open > 0
                })
                .collect();
            if !tokens(&event).iter().any(|token| token == "operation") {
                let line = code[..at].lines().count();
                faults.push(format!("{}:{line}: an event without an operation", source.path));
            }
        }
    }
    faults
}

fn check_name(source: &Source) -> Vec<String> {
    let junk = ["util", "utils", "common", "helper", "helpers", "misc", "manager", "models", "types"];
    let stem = |part: &str| part.split('.').next().unwrap_or_default().to_owned();
    let drawers = source.path.split('/').map(stem).filter(|part| junk.contains(&part.as_str()));
    drawers.map(|part| format!("{}: {part} is a junk drawer", source.path)).collect()
}

fn check_head(source: &Source) -> Vec<String> {
    if source.is_rust() && !source.text.starts_with("//! ") {
        return vec![format!("{}: does not open with what it owns (//!)", source.path)];
    }
    Vec::new()
}

/// A script's header tells every slot that the script uses, and no other.
fn check_lua(source: &Source) -> Vec<String> {
    if !source.path.ends_with(".lua") {
        return Vec::new();
    }
    let is_comment = |line: &&str| line.trim().is_empty() || line.starts_with("--") || line.starts_with("#!");
    let header: String = source.text.lines().take_while(is_comment).map(|line| format!("{line}\n")).collect();
    let body: String = source.text[header.len().min(source.text.len())..]
        .lines()
        .map(|line| format!("{}\n", line.split("--").next().unwrap_or_default()))
        .collect();
    let (told, used) = (slots(&header), slots(&body));
    let mut faults = Vec::new();
    for slot in used.difference(&told) {
        faults.push(format!("{}: {slot} is used but not in the header", source.path));
    }
    for slot in told.difference(&used) {
        faults.push(format!("{}: {slot} is in the header but not used", source.path));
    }
    if header.is_empty() {
        faults.push(format!("{}: has no header", source.path));
    }
    faults
}

/// `KEYS[1]`, `ARGV[2]`: those with a fixed number.
fn slots(text: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for array in ["KEYS[", "ARGV["] {
        for (at, _) in text.match_indices(array) {
            let inside = text[at + array.len()..].split(']').next().unwrap_or_default();
            if !inside.is_empty() && inside.chars().all(|c| c.is_ascii_digit()) {
                found.insert(format!("{array}{inside}]"));
            }
        }
    }
    found
}

// === The repository ===

fn repository() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut sources = Vec::new();
    let mut folders = vec![PathBuf::new()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(root.join(&folder)).unwrap() {
            let entry = entry.unwrap();
            let name = entry.file_name().into_string().unwrap();
            let inside = folder.join(&name);
            if entry.file_type().unwrap().is_dir() {
                let ours = !["target", "node_modules", "__pycache__", "hearth-data"].contains(&name.as_str());
                if ours && (!name.starts_with('.') || name == ".ci") {
                    folders.push(inside);
                }
            } else if name != "Cargo.lock"
                && name != ".git"
                && let Ok(text) = std::fs::read_to_string(root.join(&inside))
            {
                sources.push(Source::new(&inside.to_str().unwrap().replace('\\', "/"), &text));
            }
        }
    }
    assert!(sources.iter().any(|source| source.path == "src/lib.rs"), "the repository was not read");
    sources
}

#[track_caller]
fn assert_tidy(faults: &[String]) {
    assert!(faults.is_empty(), "\n{}\n", faults.join("\n"));
}

#[test]
fn rooms_use_what_the_table_of_arrows_allows() {
    let sources = repository();
    let readme = sources.iter().find(|source| source.path == "README.md").expect("README.md");
    assert_tidy(&check_arrows(&sources, &readme.text));
}

#[test]
fn every_file_keeps_the_rulebook() {
    let checks = [
        check_leftovers,
        check_machine_paths,
        check_spawn,
        check_environment,
        check_events,
        check_name,
        check_head,
        check_lua,
    ];
    let sources = repository();
    let faults: Vec<String> =
        sources.iter().flat_map(|source| checks.iter().flat_map(|check| check(source))).collect();
    assert_tidy(&faults);
}

// === The checks themselves, on planted faults ===

const README: &str = "\n### Arrows\n\n| room | may use |\n| --- | --- |\n| base | ids |\n| ids | |\n| store | base |\n\
                      | home | `base`, store |\n| gate | base, home::placement, protocol |\n| app | all |\n";

#[track_caller]
fn arrows_of(path: &str, text: &str) -> Vec<String> {
    let mut sources: Vec<Source> = ["ids", "store", "home", "gate", "app"]
        .iter()
        .map(|room| Source::new(&format!("src/{room}.rs"), ""))
        .collect();
    sources.push(Source::new(path, text));
    check_arrows(&sources, README)
}

#[test]
fn an_arrow_that_goes_up_is_found() {
    for (path, text, found) in [
        ("src/store/x.rs", "use crate::home::Home;", "store must not use home::Home"),
        ("src/store/x.rs", "use crate::{ids::Epoch, home::{self, lease}};", "store must not use home::lease"),
        ("src/store/x.rs", "use crate::{\n    ids::Epoch,\n    home,\n};", "store must not use home"),
        ("src/store/x.rs", "fn f() { crate::home::f() }", "store must not use home::f"),
        ("src/store/x.rs", "use super::super::home::X;", "store must not use home::X"),
        ("src/store/mod.rs", "use super::home::X;", "store must not use home::X"),
        ("src/store/x.rs", "use protocol::Op;", "store must not use protocol::Op"),
        ("src/gate/x.rs", "use crate::home::records::X;", "gate must not use home::records::X"),
        ("src/ids/x.rs", "use crate::store::X;", "ids must not use store::X"),
        ("src/new.rs", "", "the room new has no row"),
    ] {
        let faults = arrows_of(path, text);
        assert!(faults.iter().any(|fault| fault.contains(found)), "{text}: {faults:?}");
    }
}

#[test]
fn an_arrow_of_the_table_is_fine() {
    for (path, text) in [
        ("src/home/x.rs", "use crate::{ids::Epoch, store::{Commit as C, Store}};\nuse crate::home::y;"),
        ("src/home/x.rs", "// use crate::gate::X;\n/* crate::gate */ const S: &str = \"crate::gate::X\";"),
        (
            "src/home/x.rs",
            "const S: &str = r#\"crate::gate::\"X\"#; const C: char = '\"'; fn f<'a>(x: &'a str) {}",
        ),
        ("src/home/x.rs", "#[cfg(test)]\nmod tests { use crate::gate::X; mod y { } }"),
        ("src/home/tests.rs", "use crate::gate::X;"),
        ("src/home/x.rs", "#[cfg(test)]\nmod tests;\nuse crate::ids::X;"),
        ("src/gate/x.rs", "use crate::home::placement::Shard; use protocol::{Op, codes};"),
        ("src/gate/x.rs", "use super::store; mod inner { use super::super::y; }"),
        ("src/app.rs", "use crate::{gate, home, store};"),
        ("src/store/x.rs", "use super::protocol::X; use self::protocol::Y;"),
        ("src/lib.rs", "pub use crate::gate::X;"),
    ] {
        assert_eq!(arrows_of(path, text), Vec::<String>::new(), "{text}");
    }
}

#[test]
fn what_comes_after_a_test_module_is_still_read() {
    let text = "#[cfg(test)]\nmod tests { fn f() { let x = '{'; } }\nuse crate::home::X;";
    assert_eq!(arrows_of("src/store/x.rs", text).len(), 1);
}

#[test]
fn leftovers_are_found() {
    for word in banned_words() {
        assert_eq!(
            check_leftovers(&Source::new("src/a.rs", &format!("x\n// {word} later"))).len(),
            1,
            "{word}"
        );
        assert!(check_leftovers(&Source::new("src/a.rs", &format!("x{word}x"))).is_empty(), "{word}");
    }
}

#[test]
fn paths_of_one_machine_are_found() {
    for folder in ["home", "root", "Users", "work"] {
        let source = |text: String| Source::new("a.md", &text);
        assert_eq!(check_machine_paths(&source(format!("cd /{folder}/ada/hearth"))).len(), 1, "{folder}");
        assert!(check_machine_paths(&source(format!("src/{folder}/x.rs"))).is_empty(), "{folder}");
        assert!(check_machine_paths(&source(format!("https://a.example/{folder}/x"))).is_empty(), "{folder}");
    }
}

#[test]
fn spawning_elsewhere_is_found() {
    for text in ["tokio::spawn(x)", "use tokio::spawn;", "tokio::task::spawn(x)", "use tokio::{spawn, time};"]
    {
        assert_eq!(check_spawn(&Source::new("src/home/flush.rs", text)).len(), 1, "{text}");
        assert!(check_spawn(&Source::new("src/tasks.rs", text)).is_empty(), "{text}");
        assert!(check_spawn(&Source::new("tests/it/main.rs", text)).is_empty(), "{text}");
    }
    for text in ["tasks.spawn(\"x\", y)", "tokio::task::spawn_blocking(x)", "// tokio::spawn"] {
        assert!(check_spawn(&Source::new("src/home/flush.rs", text)).is_empty(), "{text}");
    }
}

#[test]
fn an_event_that_does_not_say_what_was_being_done_is_found() {
    let of = |text: &str| check_events(&Source::new("src/home/flush.rs", text)).len();
    assert_eq!(of("tracing::warn!(shard = of(3), \"operation\");\nlet operation = 1;"), 1);
    assert_eq!(of("tracing::info!(\"x\"); tracing::debug!();"), 2);
    assert_eq!(of("tracing::warn!(shard = of(3), operation = \"flush\", \"x\");"), 0);
    assert_eq!(of("tracing::warn!(operation, \"x\");"), 0);
    assert!(check_events(&Source::new("tests/it/main.rs", "tracing::warn!()")).is_empty());
}

#[test]
fn reading_the_environment_elsewhere_is_found() {
    for text in ["std::env::var(\"X\")", "use std::env;\nfn f() { env::vars(); }", "std::env::var_os(X)"] {
        assert_eq!(check_environment(&Source::new("src/home/flush.rs", text)).len(), 1, "{text}");
        assert!(check_environment(&Source::new("src/config/mod.rs", text)).is_empty(), "{text}");
    }
    assert!(check_environment(&Source::new("src/main.rs", "std::env::args_os()")).is_empty());
}

#[test]
fn junk_drawers_are_found() {
    for path in ["src/util.rs", "src/home/types.rs", "src/common/x.rs", "load/src/helpers.rs"] {
        assert_eq!(check_name(&Source::new(path, "")).len(), 1, "{path}");
    }
    assert!(check_name(&Source::new("src/home/record_types_of.rs", "")).is_empty());
}

#[test]
fn a_file_without_a_head_is_found() {
    assert_eq!(check_head(&Source::new("src/a.rs", "use x;\n//! late")).len(), 1);
    assert!(check_head(&Source::new("src/a.rs", "//! Owns a.\n")).is_empty());
    assert!(check_head(&Source::new("src/a.lua", "")).is_empty());
}

#[test]
fn a_script_whose_header_lies_is_found() {
    let header = "#!lua\n-- commit: what\n-- KEYS[1] meta\n-- ARGV[1] owner\n\n";
    let lua = |body: &str| check_lua(&Source::new("src/store/lua/x.lua", &format!("{header}{body}")));
    assert_eq!(lua("redis.call('GET', KEYS[1])\nreturn ARGV[1] -- ARGV[7]\n"), Vec::<String>::new());
    assert_eq!(lua("for i = 2, #KEYS do f(KEYS[i]) end\nreturn {KEYS[1], ARGV[1]}\n"), Vec::<String>::new());
    assert_eq!(lua("return {KEYS[1], ARGV[1], ARGV[2]}").len(), 1);
    assert_eq!(lua("return KEYS[1]").len(), 1);
    assert_eq!(check_lua(&Source::new("x.lua", "return 1")).len(), 1);
}
