//! The file of service keys: names, scopes, and either secrets or their digests. `keys` reads it, `cli` writes entries
//! for it. No fault repeats what stands in the file: it may be a secret.

use base64::Engine as _;
use sha2::{Digest as _, Sha256};
use toml::{Table, Value};

use super::{BOOTSTRAP, Key, NAME_BYTES_MAX, Scope, is_name};
use crate::config::Secret;
use crate::files::{Fault, Named};

/// Most keys of one file: each is compared at every call.
const KEYS_MAX: usize = 1_000;
/// A shorter secret can be guessed from its digest.
const SECRET_BYTES_MIN: usize = 16;
/// What a generated key starts with, so that scanners for lost secrets can find it.
const GENERATED_PREFIX: &str = "hearth_sk_";

/// Reads the file:
///
/// ```toml
/// [[keys]]
/// name = "shop"
/// scopes = ["read", "push"]
/// sha256 = "<64 hex digits>"   # or: secret = "<the key itself>"
/// ```
pub(super) fn read(files: &[Named], read: &[Vec<u8>]) -> Result<Vec<Key>, Fault> {
    let (Some(file), Some(bytes)) = (files.first(), read.first()) else { return Ok(Vec::new()) };
    parse(bytes).map_err(|message| file.fault(format!("{}: {message}", file.path.display())))
}

fn parse(bytes: &[u8]) -> Result<Vec<Key>, String> {
    let text = std::str::from_utf8(bytes).map_err(|_| "not UTF-8".to_owned())?;
    let table: Table = text.parse().map_err(|error: toml::de::Error| {
        let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
        format!("not TOML in line {}", before.matches('\n').count() + 1)
    })?;
    if let Some(other) = table.keys().find(|name| *name != "keys") {
        return Err(format!("{other:?} has no place here: write [[keys]]"));
    }
    let entries = match table.get("keys") {
        None => return Ok(Vec::new()),
        Some(Value::Array(entries)) => entries,
        Some(_) => return Err("keys must be a list of tables: write [[keys]]".to_owned()),
    };
    if entries.len() > KEYS_MAX {
        return Err(format!("more than {KEYS_MAX} keys"));
    }
    let mut keys: Vec<Key> = Vec::with_capacity(entries.len());
    for (at, entry) in entries.iter().enumerate() {
        let key = entry.as_table().ok_or_else(|| "not a table".to_owned()).and_then(entry_of);
        let key = key.map_err(|message| format!("key {}: {message}", at + 1))?;
        // The same name may stand twice: so a key is replaced without a pause.
        if keys.iter().any(|other| other.digest == key.digest) {
            return Err(format!("key {}: the same secret stands twice", at + 1));
        }
        keys.push(key);
    }
    Ok(keys)
}

fn entry_of(entry: &Table) -> Result<Key, String> {
    if let Some(other) =
        entry.keys().find(|name| !["name", "scopes", "sha256", "secret"].contains(&name.as_str()))
    {
        return Err(format!("{other:?} is not known: name, scopes, and sha256 or secret are"));
    }
    let name = entry.get("name").and_then(Value::as_str).filter(|name| is_name(name));
    let name = name.ok_or_else(|| format!("name: 1 to {NAME_BYTES_MAX} bytes without control characters"))?;
    if name == BOOTSTRAP {
        return Err(format!("name: {BOOTSTRAP} is the one of the setting service_key"));
    }
    let scopes = entry.get("scopes").and_then(Value::as_array).filter(|scopes| !scopes.is_empty());
    let scopes: Option<Vec<Scope>> =
        scopes.and_then(|scopes| scopes.iter().map(|scope| Scope::named(scope.as_str()?)).collect());
    let scopes = scopes.ok_or("scopes: a list of read, push, write, admin")?;
    let digest = match (entry.get("sha256"), entry.get("secret")) {
        (Some(digest), None) => digest.as_str().and_then(digest_of).ok_or("sha256: 64 hex digits")?,
        (None, Some(secret)) => match secret.as_str() {
            Some(secret) if secret.len() >= SECRET_BYTES_MIN => Sha256::digest(secret).into(),
            _ => return Err(format!("secret: a text of at least {SECRET_BYTES_MIN} bytes")),
        },
        _ => return Err("either sha256 or secret".to_owned()),
    };
    Ok(Key::of_digest(name, digest, &scopes))
}

fn digest_of(text: &str) -> Option<[u8; 32]> {
    let mut digest = [0; 32];
    if text.len() != 2 * digest.len() || !text.is_ascii() {
        return None;
    }
    for (at, byte) in digest.iter_mut().enumerate() {
        *byte = u8::from_str_radix(text.get(2 * at..2 * at + 2)?, 16).ok()?;
    }
    Some(digest)
}

/// A new key.
#[derive(Debug)]
pub struct GeneratedKey {
    /// The key itself, for the service.
    pub secret: Secret,
    /// Its entry for the file, which holds only the digest.
    pub entry: String,
}

/// Makes a key.
///
/// # Errors
/// What is wrong with the name.
pub fn generate(name: &str, scopes: &[Scope]) -> Result<GeneratedKey, String> {
    let random: [u8; 32] = rand::random();
    let secret =
        format!("{GENERATED_PREFIX}{}", base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(random));
    let digest = Sha256::digest(&secret).iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let scopes = scopes.iter().map(|scope| Value::from(scope.name())).collect::<Vec<_>>();
    let entry = Table::from_iter([
        ("name".to_owned(), Value::from(name)),
        ("scopes".to_owned(), Value::from(scopes)),
        ("sha256".to_owned(), Value::from(digest)),
    ]);
    entry_of(&entry)?;
    let keys = Table::from_iter([("keys".to_owned(), Value::Array(vec![Value::Table(entry)]))]);
    Ok(GeneratedKey { secret: Secret::new(secret), entry: keys.to_string() })
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHA256_OF_ABC: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    fn fault(text: &str) -> String {
        parse(text.as_bytes()).expect_err("a fault")
    }

    #[test]
    fn a_file_holds_secrets_or_their_digests() {
        let text = format!(
            "[[keys]]\nname = \"shop\"\nscopes = [\"read\", \"push\"]\nsha256 = \"{SHA256_OF_ABC}\"\n\
             [[keys]]\nname = \"shop\"\nscopes = [\"admin\"]\nsecret = \"0123456789abcdef\"\n"
        );
        let keys = parse(text.as_bytes()).expect("a good file");
        assert_eq!(keys[0].digest, <[u8; 32]>::from(Sha256::digest("abc")));
        assert_eq!(keys[1].digest, <[u8; 32]>::from(Sha256::digest("0123456789abcdef")));
        assert!(keys[0].identity.opens(Scope::Push) && !keys[0].identity.opens(Scope::Admin));
        assert!(parse(b"").expect("an empty file").is_empty());
    }

    #[test]
    fn the_example_opens_nothing_until_keys_are_put_in_and_is_good_then() {
        let example = include_str!("../../../config/service-keys.toml");
        assert!(parse(example.as_bytes()).expect("a good file").is_empty());
        let filled: Vec<&str> = example
            .lines()
            .map(|line| line.strip_prefix('#').filter(|rest| !rest.starts_with([' ', '\n'])).unwrap_or(line))
            .collect();
        let filled = filled
            .join("\n")
            .replace("<64 hex digits>", SHA256_OF_ABC)
            .replace("<at least 16 bytes>", "0123456789abcdef");
        let keys = parse(filled.as_bytes()).expect("a good file");
        assert_eq!(keys.iter().map(|key| key.identity.name()).collect::<Vec<_>>(), ["shop", "matchmaker"]);
    }

    #[test]
    fn a_fault_names_its_place_and_no_secret() {
        const SECRET: &str = "s3cret-s3cret-s3cret";
        let entry = |lines: &str| format!("[[keys]]\n{lines}\n");
        let good = format!("name = \"shop\"\nscopes = [\"read\"]\nsecret = \"{SECRET}\"");
        for (text, named) in [
            (format!("[[keys]]\nsecret = \"{SECRET}\nname = 1"), "line 2"),
            (format!("secret = \"{SECRET}\""), "[[keys]]"),
            (format!("keys = \"{SECRET}\""), "[[keys]]"),
            (entry(&good.replace("shop", "")), "key 1: name"),
            (entry(&good.replace("shop", "bootstrap")), "service_key"),
            (entry(&good.replace("read", SECRET)), "key 1: scopes"),
            (entry(&good.replace("[\"read\"]", "[]")), "key 1: scopes"),
            (entry(&good.replace(SECRET, "short")), "16 bytes"),
            (entry(&good.replace("secret", "sha256")), "64 hex digits"),
            (entry(&format!("{good}\nsha256 = \"{SHA256_OF_ABC}\"")), "either"),
            (entry(&format!("{good}\ncolour = \"{SECRET}\"")), "colour"),
            (entry(&good) + &entry(&good), "key 2: the same"),
        ] {
            let told = fault(&text);
            assert!(told.contains(named), "{named} is not in {told:?} of\n{text}");
            assert!(!told.contains(SECRET), "{told}");
        }
    }

    #[test]
    fn a_generated_entry_is_read_again() {
        let made = generate("shop \"1\"", &[Scope::Read, Scope::Push]).expect("a good name");
        let keys = parse(made.entry.as_bytes()).expect("a good entry");
        assert_eq!(keys[0].digest, <[u8; 32]>::from(Sha256::digest(made.secret.expose())));
        assert_eq!(keys[0].identity.name(), "shop \"1\"");
        assert!(!made.entry.contains(made.secret.expose()));
        assert!(generate("", &[Scope::Read]).is_err() && generate("shop", &[]).is_err());
    }
}
