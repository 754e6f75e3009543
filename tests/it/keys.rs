//! What is promised about keys that change while the server runs: services', players' and the server's own. The store has no part in it.

use std::path::{Path, PathBuf};
use std::process::Command;

use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, EncodingKey};
use serde_json::{Value, json};

use crate::harness::follower::Follower;
use crate::harness::patience::until;
use crate::harness::player::Player;
use crate::harness::server::Server;
use crate::harness::service::Service;
use crate::harness::socket::{Encoding, Line, Socket};
use crate::harness::stages::Stage;

/// The program's own answer to a command line: standard output and standard error.
fn hearth(arguments: &[&str]) -> (String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_hearth")).args(arguments).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    (text(&output.stdout), text(&output.stderr))
}

/// A new service key: its entry for the file, and the key.
fn service_key(name: &str, scopes: &str) -> (String, String) {
    let (entry, told) = hearth(&["service-key", "--name", name, "--scopes", scopes]);
    (entry, told.trim().rsplit(' ').next().unwrap().to_owned())
}

/// Puts a file in another's place, as careful programs do.
fn replace(path: &Path, text: &str) {
    let next = path.with_extension("next");
    std::fs::write(&next, text).unwrap();
    std::fs::rename(next, path).unwrap();
}

/// The settings that fall short, once one of this name does, or none does.
async fn shortfalls(service: &Service, setting: &str, expected: bool) -> Vec<Value> {
    until("the shortfall", async || {
        let (_, readiness) = service.get("/readyz").await;
        let shortfalls = readiness["shortfalls"].as_array().unwrap().clone();
        (shortfalls.iter().any(|one| one["setting"] == setting) == expected).then_some(shortfalls)
    })
    .await
}

#[tokio::test]
async fn service_keys_come_and_go_with_their_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("keys.toml");
    let (shop_entry, shop_key) = service_key("shop", "read,push");
    let (ops_entry, ops_key) = service_key("ops", "admin,write");
    replace(&path, &shop_entry);
    let starting = Server::on(Stage::Embedded).with("service.keys_file", path.display());
    let server = starting.with("service_key", "the bootstrap key").with("log.format", "json").start();
    let mut ann = server.login("ann").await;
    let [shop, ops, bootstrap] =
        [shop_key.as_str(), &ops_key, "the bootstrap key"].map(|key| Service::of(&server, key));

    // The shop may look and push, and no more.
    assert_eq!(shop.post("/v1/players/ann/messages", json!({"data": 1})).await.0, 200);
    assert_eq!(ann.expect_push("message").await["service"], "shop");
    let (status, problem) = shop.post("/v1/players/ann/kick", json!({"reason": "r"})).await;
    assert_eq!((status, &problem["code"]), (403, &json!("forbidden")));
    let (status, problem) = ops.get("/v1/stats").await;
    assert_eq!((status, &problem["code"]), (401, &json!("unauthorized")));

    let mut followed = Follower::at(server.service_url(), &shop_key, None).await;

    // A key that comes is good, one that goes is not, and the rest does not notice.
    replace(&path, &ops_entry);
    until("the change of keys", async || (shop.get("/v1/stats").await.0 == 401).then_some(())).await;
    assert_eq!(ops.post("/v1/sessions", json!({"player": "bea"})).await.0, 201);
    assert_eq!(bootstrap.get("/v1/stats").await.0, 200);
    while followed.next().await.is_some() {}

    // A broken file changes nothing, and is told without what stands in it.
    replace(&path, "[[keys]]\nname = \"shop\"\nsecret = \"s3cret-s3cret-s3cret\"\n");
    let told = shortfalls(&bootstrap, "service.keys_file", true).await;
    let message =
        told.iter().find(|one| one["setting"] == "service.keys_file").unwrap()["message"].to_string();
    assert!(message.contains("key 1: scopes") && message.contains("stays in force"), "{message}");
    assert_eq!(ops.post("/v1/sessions", json!({"player": "cem"})).await.0, 201);
    std::fs::remove_file(&path).unwrap();
    until("the log", async || server.log().contains("cannot read").then_some(())).await;
    assert_eq!(ops.post("/v1/sessions", json!({"player": "dan"})).await.0, 201);
    replace(&path, &(shop_entry + &ops_entry));
    shortfalls(&bootstrap, "service.keys_file", false).await;
    assert_eq!(shop.get("/v1/stats").await.0, 200);

    // Every change stands in the log with its key, and no secret does.
    let log = server.log();
    let audit: Vec<Value> = log
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .filter(|line| line["target"] == "audit")
        .collect();
    let told: Vec<(&str, &str, &str)> = audit
        .iter()
        .map(|line| ["key", "operation", "status"].map(|name| line[name].as_str().unwrap()).into())
        .collect();
    assert_eq!(
        told,
        [
            ("shop", "message", "ok"),
            ("shop", "kick", "refused"),
            ("ops", "session.open", "ok"),
            ("ops", "session.open", "ok"),
            ("ops", "session.open", "ok"),
        ]
    );
    for secret in [shop_key.as_str(), &ops_key, "the bootstrap key", "s3cret-s3cret"] {
        assert!(!log.contains(secret), "{secret} is in the log");
    }
}

const OF_SERVICES: &str = "0123456789abcdef0123456789abcdef";
const OF_PLAYERS: &str = "fedcba9876543210fedcba9876543210";

fn signed(secret: &str, claims: &Value) -> String {
    let key = EncodingKey::from_secret(secret.as_bytes());
    jsonwebtoken::encode(&jsonwebtoken::Header::default(), claims, &key).unwrap()
}

fn in_a_minute() -> u64 {
    let unix = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    unix.as_secs() + 60
}

#[tokio::test]
async fn a_token_of_a_service_and_one_of_a_player_are_never_taken_for_each_other() {
    let starting = Server::on(Stage::Embedded).with("service.jwt_secret", OF_SERVICES);
    let server = starting.with("auth.jwt_secret", OF_PLAYERS).start();
    let of_service = json!({"sub": "shop", "scopes": ["read"], "exp": in_a_minute()});
    let of_player = json!({"sub": "ann", "exp": in_a_minute()});

    let good = Service::of(&server, &signed(OF_SERVICES, &of_service));
    assert_eq!(good.get("/v1/stats").await.0, 200);
    assert_eq!(good.post("/v1/players/ann/messages", json!({"data": 1})).await.0, 403);
    server.connect().await.login_with(json!({"token": signed(OF_PLAYERS, &of_player)})).await;

    let mut told = Vec::new();
    for (secret, claims) in [(OF_PLAYERS, &of_player), (OF_PLAYERS, &of_service), (OF_SERVICES, &of_player)] {
        let service = Service::of(&server, &signed(secret, claims));
        let (status, problem) = service.get("/v1/stats").await;
        assert_eq!(status, 401, "{claims}");
        told.push(problem);
    }
    told.push(Service::of(&server, "just wrong").get("/v1/stats").await.1);
    assert!(told.iter().all(|problem| *problem == told[0]), "a refusal tells nothing: {told:?}");
    for (secret, claims) in [(OF_SERVICES, &of_player), (OF_SERVICES, &of_service), (OF_PLAYERS, &of_service)]
    {
        let mut player = server.connect().await;
        let token = signed(secret, claims);
        player.is_refused("login", json!({"token": token}), "unauthorized").await;
        player.expect_close(4500).await;
    }
}

/// A private key in a file, and its public half as a key set knows it.
struct Signer {
    path: PathBuf,
    public: Value,
    kid: &'static str,
}

impl Signer {
    fn new(folder: &Path, kid: &'static str) -> Self {
        let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
        let path = folder.join(kid).with_extension("pem");
        std::fs::write(&path, pair.serialize_pem()).unwrap();
        let private = EncodingKey::from_ec_der(&pair.serialize_der());
        let mut public =
            serde_json::to_value(Jwk::from_encoding_key(&private, Algorithm::ES256).unwrap()).unwrap();
        public["kid"] = json!(kid);
        Self { path, public, kid }
    }

    /// A token as the program itself mints it.
    fn token(&self, keys_file: &Path) -> String {
        let set = format!("auth.jwks_file={}", keys_file.display());
        let key_file = self.path.to_str().unwrap();
        let arguments =
            ["token", "--player", "ann", "--key-file", key_file, "--kid", self.kid, "--set", &set];
        hearth(&arguments).0.trim().to_owned()
    }
}

fn key_set(signers: &[&Signer]) -> String {
    json!({"keys": signers.iter().map(|signer| &signer.public).collect::<Vec<_>>()}).to_string()
}

#[tokio::test]
async fn keys_of_players_are_rotated_while_the_server_runs() {
    let folder = tempfile::tempdir().unwrap();
    let (old, new) = (Signer::new(folder.path(), "old"), Signer::new(folder.path(), "new"));
    // The file is a link to a folder that is swapped as a whole, as Kubernetes mounts it.
    let mount = |name: &str, text: &str| {
        std::fs::create_dir(folder.path().join(name)).unwrap();
        std::fs::write(folder.path().join(name).join("keys.json"), text).unwrap();
        let link = folder.path().join("link");
        std::os::unix::fs::symlink(folder.path().join(name), &link).unwrap();
        std::fs::rename(link, folder.path().join("mounted")).unwrap();
    };
    mount("1", &key_set(&[&old]));
    let path = folder.path().join("mounted").join("keys.json");
    let server = Server::on(Stage::Embedded).with("auth.jwks_file", path.display()).start();
    let probe = Service::of(&server, "none");
    let (of_old, of_new) = (old.token(&path), new.token(&path));
    let enters = async |token: &str| {
        let mut player = server.connect().await;
        player.ask("login", json!({"token": token})).await.is_ok()
    };
    assert!(enters(&of_old).await && !enters(&of_new).await);

    mount("2", &key_set(&[&old, &new]));
    until("the new key", async || enters(&of_new).await.then_some(())).await;
    assert!(enters(&of_old).await);

    mount("3", &key_set(&[&new]));
    until("the end of the old key", async || (!enters(&of_old).await).then_some(())).await;
    assert!(enters(&of_new).await);

    mount("4", "{\"keys\": [{}]}");
    shortfalls(&probe, "auth.jwks_file", true).await;
    assert!(enters(&of_new).await && !enters(&of_old).await);
}

#[tokio::test]
async fn a_new_certificate_greets_new_links_and_leaves_the_old_ones_alone() {
    let made = || rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let (old, new) = (made(), made());
    let folder = tempfile::tempdir().unwrap();
    let (cert_file, key_file) = (folder.path().join("cert.pem"), folder.path().join("key.pem"));
    replace(&cert_file, &old.cert.pem());
    replace(&key_file, &old.signing_key.serialize_pem());
    let starting = Server::on(Stage::Embedded).with("tls.cert_file", cert_file.display());
    let server = starting.with("tls.key_file", key_file.display()).start();
    let probe = Service::of(&server, "none");
    let links = async |certificate: &rcgen::CertifiedKey<rcgen::KeyPair>| {
        let trusted = certificate.cert.der().clone();
        Socket::try_open_over(Line::Tls(trusted), server.url(), Encoding::Json).await.map(Player::over)
    };
    let mut ann = links(&old).await.expect("the old certificate");
    ann.login("ann").await;
    server.until_metric("hearth_tls_certificate_days_left", "", 30).await;

    // Half a pair is not used, and told.
    replace(&cert_file, &new.cert.pem());
    shortfalls(&probe, "tls.cert_file, tls.key_file", true).await;
    assert!(links(&old).await.is_some());
    replace(&key_file, &new.signing_key.serialize_pem());
    until("the new certificate", async || links(&new).await).await;
    assert!(links(&old).await.is_none());
    shortfalls(&probe, "tls.cert_file, tls.key_file", false).await;
    ann.pings().await;
}
