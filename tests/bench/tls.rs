//! TLS beside plain: CPU per delivery, user memory of an idle connection, and what connecting costs.
//!
//! Also the client's end of it ([`connect`], [`receive`]), for the client role.

use std::io::{self, Read, Write};
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use rustls::client::Resumption;
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::{CertificateDer, pem::PemObject};
use rustls::{ClientConfig, ClientConnection, RootCertStore};
use socket2::Socket;

use crate::client::Manner;
use crate::cpu::{self, CpuTime};
use crate::fanout::{Contestant, Mode, Taking};
use crate::process::{self, Server, Setup};
use crate::report::{Figure, Report};
use crate::stats::median;
use crate::wire::Kind;
use crate::{Outcome, Plan};

/// The sizes of messages, bytes.
const SIZES: [usize; 2] = [128, 4096];
/// Connections that are opened one after the other to see what that costs.
const OPENED: usize = 500;
/// How the client role learns whom to trust.
pub const TRUST: &str = "REALTIME_BENCH_TRUST";

/// Measures and prints all three.
pub fn run(setup: &Setup, plan: &Plan, report: &mut Report) -> Outcome<()> {
    let key = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]);
    let key = key.map_err(|e| format!("certificate: {e}"))?;
    for (name, content) in [
        ("cert.pem", key.cert.pem()),
        ("key.pem", key.signing_key.serialize_pem()),
    ] {
        std::fs::write(setup.scratch.join(name), content).map_err(|e| format!("{name}: {e}"))?;
    }
    deliveries(setup, plan, report)?;
    memory(setup, plan, report)?;
    connecting(setup, report)
}

fn deliveries(setup: &Setup, plan: &Plan, report: &mut Report) -> Outcome<()> {
    let count = plan.sizes.iter().copied().min().unwrap_or(1000);
    let mut plain = Contestant::php(setup, Kind::Raw, count)?;
    let mut secure = Contestant::php(setup, Kind::Secure, count)?;
    let messages = (plan.deliveries / 2 / count).next_multiple_of(8).max(16);
    let mut figures = Vec::new();
    for bytes in SIZES {
        for mode in [Mode::Alone, Mode::Sliding] {
            let mut takings: Vec<(Taking, Taking)> = Vec::new();
            for round in 0..=plan.rounds {
                let pair = (
                    plain.take(mode, messages, bytes)?,
                    secure.take(mode, messages, bytes)?,
                );
                if round > 0 {
                    takings.push(pair);
                }
            }
            let of = |get: fn(&(Taking, Taking)) -> f64| {
                median(&takings.iter().map(get).collect::<Vec<_>>())
            };
            let name = format!("{bytes} bytes, {}", mode.name());
            let times = of(|(plain, secure)| secure.cpu / plain.cpu);
            figures.push(Figure::new(format!("plain, {name}"), of(|t| t.0.cpu), "ns"));
            figures.push(
                Figure::new(format!("TLS 1.3, {name}"), of(|t| t.1.cpu), "ns")
                    .note(format!("{times:.2} x plain")),
            );
        }
    }
    report.section(
        &format!("TLS: CPU per delivery, N = {count}, whole server process"),
        &figures,
    );
    Ok(())
}

fn memory(setup: &Setup, plan: &Plan, report: &mut Report) -> Outcome<()> {
    let mut figures = Vec::new();
    for (kind, name) in [(Kind::Raw, "plain"), (Kind::Secure, "TLS 1.3")] {
        let server = server(setup, kind, "idle")?;
        let pid = server.process.pid();
        let _warm = process::clients(setup, &server, kind, 20, "idle", Manner::Plain)?;
        std::thread::sleep(Duration::from_millis(300));
        let before = cpu::pss(pid)?;
        let _idle = process::clients(setup, &server, kind, plan.idle, "idle", Manner::Plain)?;
        std::thread::sleep(Duration::from_secs(1));
        let growth = cpu::pss(pid)?.saturating_sub(before);
        figures.push(Figure::new(name, growth as f64 / plan.idle as f64, "bytes"));
    }
    report.section(
        &format!(
            "TLS: user memory of an idle connection, PSS growth over {}",
            plan.idle
        ),
        &figures,
    );
    Ok(())
}

fn connecting(setup: &Setup, report: &mut Report) -> Outcome<()> {
    let mut figures = Vec::new();
    for (kind, name) in [
        (Kind::Raw, "plain"),
        (Kind::Resuming, "TLS 1.3, resumed"),
        (Kind::Secure, "TLS 1.3, whole handshake (ECDSA P-256)"),
    ] {
        let server = server(setup, kind, "open")?;
        let pid = server.process.pid();
        let _warm = process::clients(setup, &server, kind, 20, "idle", Manner::Plain)?;
        let before = CpuTime::of(pid)?;
        let _open = process::clients(setup, &server, kind, OPENED, "idle", Manner::Plain)?;
        let used = CpuTime::of(pid)?.since(before);
        figures.push(Figure::new(
            name,
            used.process as f64 / OPENED as f64 / 1e3,
            "us",
        ));
    }
    report.section(
        "TLS: CPU of the server for a connection that opens, WebSocket included",
        &figures,
    );
    Ok(())
}

fn server(setup: &Setup, kind: Kind, name: &str) -> Outcome<Server> {
    let socket = format!("tls-{name}-{}.sock", kind.name());
    let cores = &setup.cores.server;
    let files = settings(setup);
    let files = files.each_ref().map(|(name, path)| (*name, &**path));
    let settings: &[_] = if kind.is_secure() { &files } else { &[] };
    Server::php(setup, cores, "publish.php", &socket, true, settings)
}

/// The settings of a server that speaks TLS.
pub fn settings(setup: &Setup) -> [(&'static str, String); 2] {
    [("tls_cert", "cert.pem"), ("tls_key", "key.pem")]
        .map(|(name, file)| (name, setup.scratch.join(file).display().to_string()))
}

/// The client's end of a connection.
pub fn connect(kind: Kind) -> Outcome<Option<Box<ClientConnection>>> {
    static CONFIG: OnceLock<Outcome<Arc<ClientConfig>>> = OnceLock::new();
    if !kind.is_secure() {
        return Ok(None);
    }
    let config = CONFIG.get_or_init(|| config(kind)).clone()?;
    let name = "localhost".try_into().map_err(|e| format!("{e}"))?;
    let connection = ClientConnection::new(config, name).map_err(|e| e.to_string())?;
    Ok(Some(Box::new(connection)))
}

/// Reads once and decrypts. Answers what TLS itself wants answered.
pub fn receive(tls: &mut ClientConnection, socket: &Socket, to: &mut [u8]) -> io::Result<usize> {
    if tls.read_tls(&mut &*socket)? == 0 {
        return Ok(0);
    }
    tls.process_new_packets().map_err(io::Error::other)?;
    flush(tls, socket)?;
    tls.reader().read(to)
}

/// Encrypts and sends.
pub fn send(tls: &mut ClientConnection, socket: &Socket, bytes: &[u8]) -> io::Result<usize> {
    let count = tls.writer().write(bytes)?;
    flush(tls, socket)?;
    Ok(count)
}

fn flush(tls: &mut ClientConnection, socket: &Socket) -> io::Result<()> {
    while tls.wants_write() {
        tls.write_tls(&mut &*socket)?;
    }
    Ok(())
}

fn config(kind: Kind) -> Outcome<Arc<ClientConfig>> {
    let file = PathBuf::from(std::env::var_os(TRUST).ok_or("nobody to trust")?);
    let certificate = CertificateDer::from_pem_file(&file).map_err(|e| format!("{e:?}"))?;
    let mut roots = RootCertStore::empty();
    roots.add(certificate).map_err(|e| e.to_string())?;
    let mut config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|e| e.to_string())?
        .with_root_certificates(roots)
        .with_no_client_auth();
    if kind == Kind::Secure {
        config.resumption = Resumption::disabled();
    }
    Ok(Arc::new(config))
}
