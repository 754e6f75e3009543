// What numbers, times and codes are called. Pure; what is not known is a dash, never a zero.

export const UNKNOWN = "–";

export const isNumber = (value) => typeof value === "number" && Number.isFinite(value);
export const list = (value) => (Array.isArray(value) ? value : []);
export const text = (value) => (typeof value === "string" ? value : "");

const WHOLE = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const digits = (value, places) => value.toFixed(places);

export const count = (value) => (isNumber(value) ? WHOLE.format(value) : UNKNOWN);

export const many = (value, one, more) => `${count(value)} ${value === 1 ? one : more}`;

export function rate(value) {
  if (!isNumber(value)) return UNKNOWN;
  return value < 10 && !Number.isInteger(value) ? digits(value, 1) : WHOLE.format(value);
}

// A time that something takes.
export function span(ms) {
  if (!isNumber(ms)) return UNKNOWN;
  if (ms === 0) return "0 ms";
  if (ms < 10) return `${digits(ms, ms < 1 ? 2 : 1)} ms`;
  if (ms < 1000) return `${digits(ms, 0)} ms`;
  if (ms < 10_000) return `${digits(ms / 1000, 1)} s`;
  return duration(ms);
}

// A time that has passed.
export function duration(ms) {
  if (!isNumber(ms)) return UNKNOWN;
  const seconds = Math.max(0, Math.floor(ms / 1000));
  const [minutes, hours, days] = [Math.floor(seconds / 60), Math.floor(seconds / 3600), Math.floor(seconds / 86_400)];
  if (minutes === 0) return `${seconds} s`;
  if (hours === 0) return minutes < 10 && seconds % 60 ? `${minutes} min ${seconds % 60} s` : `${minutes} min`;
  if (days === 0) return minutes % 60 ? `${hours} h ${minutes % 60} min` : `${hours} h`;
  return hours % 24 ? `${days} d ${hours % 24} h` : `${days} d`;
}

export function bytes(value) {
  if (!isNumber(value)) return UNKNOWN;
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let at = 0;
  while (value >= 1024 && at < units.length - 1) {
    value /= 1024;
    at += 1;
  }
  return `${digits(value, at > 0 && value < 10 ? 1 : 0)} ${units[at]}`;
}

export const percent = (value) => (isNumber(value) ? `${digits(value, value < 10 ? 1 : 0)} %` : UNKNOWN);

const CLOCK = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit", second: "2-digit" });
const DAY = new Intl.DateTimeFormat("en-GB", { day: "numeric", month: "short" });

// When it was, by this machine's time zone; with the day where that is not today.
export function clock(at, now) {
  if (!isNumber(at)) return UNKNOWN;
  const isToday = new Date(at).toDateString() === new Date(now).toDateString();
  return isToday ? CLOCK.format(at) : `${DAY.format(at)}, ${CLOCK.format(at)}`;
}

// A value of an alarm, in its unit.
export function measure(value, unit) {
  if (!isNumber(value)) return UNKNOWN;
  switch (unit) {
    case "seconds":
    case "s":
      return span(value * 1000);
    case "milliseconds":
    case "ms":
      return span(value);
    case "ratio":
    case "share":
      return percent(value * 100);
    case "percent":
    case "%":
      return percent(value);
    case "bytes":
      return bytes(value);
    case "per_second":
    case "1/s":
      return `${rate(value)}/s`;
    default: {
      const words = text(unit).replaceAll("_", " ");
      // Units are named as of many: "nodes", "logins/s".
      const named = value === 1 ? words.replace(/^([a-z]+)s(\/s)?$/, "$1$2") : words;
      return `${rate(value)}${named ? ` ${named}` : ""}`;
    }
  }
}

// Names for people; what is not known here is called by its own.
const ALARMS = {
  error_rate: "Calls fail",
  latency: "Answers are slow",
  traffic: "Traffic has jumped",
  store_slow: "The store is slow",
  store_down: "The store does not answer",
  store_lost: "The store has lost data",
  hot_room: "One room makes most of the traffic",
  login_flood: "A flood of logins",
  slow_readers: "Clients read too slowly",
  session_leak: "Sessions pile up",
  node_lost: "A node has vanished",
  lease_lost: "Leases were lost",
  mail_lag: "Letters between nodes are late",
  bad_client: "A client speaks nonsense",
};
export function named(name) {
  const plain = text(name).replaceAll("_", " ");
  return ALARMS[name] ?? (plain ? plain[0].toUpperCase() + plain.slice(1) : "An alarm");
}

const CLOSES = {
  1000: "closed in order",
  1001: "the client went away",
  1005: "closed without a code",
  1006: "the connection broke",
  1009: "a message was too large",
  4000: "the server was going away, or could not answer",
  4001: "a newer link, or another node, serves the session",
  4002: "sent to another node",
  4003: "the client read too slowly",
  4004: "no sign of life",
  4005: "a fault of the server",
  4500: "the token is not good",
  4501: "the client does not speak this protocol",
  4502: "closed by an operator or a service",
  4503: "banned",
  4504: "a newer login took its place",
  4505: "the login policy refuses one more session",
  4506: "the rate limits were abused",
  4507: "closed for maintenance",
};
export function closed(code) {
  if (!isNumber(code)) return "";
  const known = CLOSES[code] ?? (code >= 4750 && code <= 4999 ? "the game's own reason" : "");
  return known ? `${code}, ${known}` : String(code);
}

const WHYS = {
  logout: "she logged out",
  expired: "its time ran out",
  replaced: "a newer login replaced it",
  session_limit: "the login policy let another one in",
  banned: "she was banned",
  kicked: "she was kicked",
};

// One entry of a timeline, as a sentence.
export function happened(entry) {
  const device = text(entry.device);
  switch (entry.kind) {
    case "opened":
      return `logged in${device ? ` on ${device}` : ""}`;
    case "bound":
      return "the client of a session came that a service had made";
    case "resumed":
      return "came back to her session";
    case "link_lost":
      return `lost her link (${closed(entry.code) || "nobody knows why"})`;
    case "moved":
      return entry.from
        ? `is served here from now on, before that at ${text(entry.from)}`
        : "is served here from now on";
    case "ended": {
      const why = WHYS[entry.why] ?? (text(entry.why) || "nobody knows why");
      const code = isNumber(entry.code) ? ` (${entry.code})` : "";
      return `session ended: ${why}${code}${entry.reason ? `, “${text(entry.reason)}”` : ""}`;
    }
    default:
      return text(entry.kind) || "something happened";
  }
}

// How many bytes a value has as MessagePack, which is what a state is measured in.
export function packed(value) {
  const sized = (length, one, two, four) => (length <= one ? 1 : length <= two ? 2 : length <= four ? 3 : 5);
  if (value === null || typeof value === "boolean") return 1;
  if (typeof value === "number") {
    if (!Number.isInteger(value)) return 9;
    if (value < 0)
      return value >= -32 ? 1 : value >= -128 ? 2 : value >= -32_768 ? 3 : value >= -2_147_483_648 ? 5 : 9;
    return value < 128 ? 1 : value < 256 ? 2 : value < 65_536 ? 3 : value < 4_294_967_296 ? 5 : 9;
  }
  if (typeof value === "string") {
    const length = new TextEncoder().encode(value).length;
    return length + sized(length, 31, 255, 65_535);
  }
  if (Array.isArray(value)) {
    return value.reduce((sum, item) => sum + packed(item), value.length <= 15 ? 1 : value.length <= 65_535 ? 3 : 5);
  }
  const fields = Object.entries(value ?? {});
  const head = fields.length <= 15 ? 1 : fields.length <= 65_535 ? 3 : 5;
  return fields.reduce((sum, [name, item]) => sum + packed(name) + packed(item), head);
}
