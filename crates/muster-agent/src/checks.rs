//! Runs one probe of a task's check, and says what it found. When it runs and what follows the machine decides.
//!
//! A command runs beside the task, under the task's supervisor; what it writes is not kept. Ports are reached at this
//! machine's loopback address, where tasks of plain processes listen.

use crate::{
    anyone,
    command::{Unfit, program, variables},
    supervisor::{Found, Look},
};
use http_body_util::Empty;
use hyper::{Request, body::Bytes, client::conn::http1, header};
use hyper_util::rt::TokioIo;
use mesos::{CommandInfo, TaskInfo, check_info, network_info::Protocol};
use muster_model::CheckResult;
use muster_node::{Probe, Probed, Which};
use muster_proto::{check::health_kind, mesos};
use prost::Message;
use rustls::pki_types::ServerName;
use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    sync::oneshot,
    time::timeout,
};

/// How much longer than its time a command's result is waited for: its supervisor ends it in time.
const GRACE: Duration = Duration::from_secs(5);

/// How a task is looked at.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum How {
    /// By its supervisor.
    Command(Look),
    /// By a GET request.
    Http { address: SocketAddr, path: String, secure: bool },
    /// By a connection.
    Tcp { address: SocketAddr },
}

/// How a probe looks.
///
/// # Errors
/// What cannot be run, in words.
pub(crate) fn how(probe: &Probe) -> Result<How, String> {
    let info =
        TaskInfo::decode(&*probe.sealed).map_err(|error| format!("the TaskInfo cannot be read: {error}"))?;
    let none = || "the task has no such check".to_owned();
    match probe.which {
        Which::Health => {
            let check = info.health_check.ok_or_else(none)?;
            if health_kind(&check) == Some(muster_model::CheckKind::Command) {
                return command(probe, &check.command.ok_or_else(none)?);
            }
            if let Some(http) = check.http.filter(|_| check.tcp.is_none()) {
                let secure = http.scheme.as_deref() == Some("https");
                return Ok(http_at(http.protocol(), http.port, http.path.as_deref(), secure));
            }
            let tcp = check.tcp.ok_or_else(none)?;
            Ok(How::Tcp { address: address(tcp.protocol(), tcp.port) })
        }
        Which::Check => {
            let check = info.check.ok_or_else(none)?;
            match check.r#type() {
                check_info::Type::Command => command(probe, &check.command.ok_or_else(none)?.command),
                check_info::Type::Http => {
                    let http = check.http.ok_or_else(none)?;
                    Ok(http_at(Protocol::IPv4, http.port, http.path.as_deref(), false))
                }
                check_info::Type::Tcp => {
                    let tcp = check.tcp.ok_or_else(none)?;
                    Ok(How::Tcp { address: address(Protocol::IPv4, tcp.port) })
                }
                check_info::Type::Unknown => Err(none()),
            }
        }
    }
}

/// What of a task's checks this agent cannot do.
pub(crate) fn refused(info: &TaskInfo) -> Option<String> {
    let commands = [
        info.health_check.as_ref().and_then(|check| check.command.as_ref()),
        info.check.as_ref().and_then(|check| Some(&check.command.as_ref()?.command)),
    ];
    let command = |it: &CommandInfo| -> Result<(), Unfit> {
        program(it)?;
        variables(it)?;
        Ok(())
    };
    commands.into_iter().flatten().find_map(|it| command(it).err()).map(|unfit| match unfit {
        Unfit::Invalid(why) | Unfit::Here(why) => format!("The task's check cannot be run: {why}"),
    })
}

fn command(probe: &Probe, command: &CommandInfo) -> Result<How, String> {
    let words = |unfit| match unfit {
        Unfit::Invalid(why) | Unfit::Here(why) => why,
    };
    let (program, arg0, args) = program(command).map_err(words)?;
    let env = variables(command).map_err(words)?;
    let (number, timeout_ms) = (probe.number, probe.timeout_ms);
    Ok(How::Command(Look { number, program, arg0, args, env, timeout_ms }))
}

fn http_at(protocol: Protocol, port: u32, path: Option<&str>, secure: bool) -> How {
    How::Http { address: address(protocol, port), path: path.unwrap_or("/").to_owned(), secure }
}

fn address(protocol: Protocol, port: u32) -> SocketAddr {
    let ip: IpAddr = match protocol {
        Protocol::IPv6 => Ipv6Addr::LOCALHOST.into(),
        Protocol::IPv4 => Ipv4Addr::LOCALHOST.into(),
    };
    // It was checked to be one.
    SocketAddr::new(ip, u16::try_from(port).unwrap_or_default())
}

/// What became of a command.
pub(crate) async fn commanded(asked: Option<oneshot::Receiver<Found>>, timeout_ms: u64) -> Probed {
    let gone = || "the task's supervisor did not answer".to_owned();
    let Some(asked) = asked else { return Err(gone().into()) };
    let patience = Duration::from_millis(timeout_ms) + GRACE;
    match timeout(patience, asked).await {
        Ok(Ok(Found::Exited(status))) => Ok(CheckResult::Exit(status)),
        // As a shell tells it.
        Ok(Ok(Found::Signaled(signal))) => Ok(CheckResult::Exit(128 + signal)),
        Ok(Ok(Found::TimedOut)) => Err(format!("it took longer than {timeout_ms} ms").into()),
        Ok(Ok(Found::Failed(why))) => Err(why.into()),
        Ok(Err(_)) | Err(_) => Err(gone().into()),
    }
}

/// Reaches a port.
pub(crate) async fn reached(how: How, timeout_ms: u64) -> Probed {
    let limit = Duration::from_millis(timeout_ms);
    let late = || format!("it took longer than {timeout_ms} ms");
    match how {
        How::Tcp { address } => {
            let connected = timeout(limit, TcpStream::connect(address)).await;
            Ok(CheckResult::Connected(connected.is_ok_and(|it| it.is_ok())))
        }
        How::Http { address, path, secure } => match timeout(limit, get(address, &path, secure)).await {
            Ok(Ok(status)) => Ok(CheckResult::Status(status)),
            Ok(Err(why)) => Err(why.into()),
            Err(_) => Err(late().into()),
        },
        How::Command(_) => Err("a command is run by the task's supervisor".into()),
    }
}

async fn get(address: SocketAddr, path: &str, secure: bool) -> Result<u32, String> {
    let stream = TcpStream::connect(address).await.map_err(|error| format!("cannot connect: {error}"))?;
    if !secure {
        return answer(stream, address, path).await;
    }
    let name = ServerName::IpAddress(address.ip().into());
    let secured = anyone::connector()?.connect(name, stream).await;
    answer(secured.map_err(|error| format!("no TLS: {error}"))?, address, path).await
}

async fn answer(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    address: SocketAddr,
    path: &str,
) -> Result<u32, String> {
    let failed = |error: &dyn std::fmt::Display| format!("no answer: {error}");
    let (mut sender, connection) =
        http1::handshake(TokioIo::new(stream)).await.map_err(|error| failed(&error))?;
    let request = Request::get(path)
        .header(header::HOST, address.to_string())
        .header(header::USER_AGENT, concat!("muster/", env!("CARGO_PKG_VERSION")))
        .body(Empty::<Bytes>::new())
        .map_err(|error| failed(&error))?;
    // With the connection the body goes that nobody reads. One that ended has left its answer, or will never have one.
    let mut answered = std::pin::pin!(sender.send_request(request));
    let answer = tokio::select! {
        answer = &mut answered => answer,
        _ = connection => answered.await,
    };
    answer.map(|answer| answer.status().as_u16().into()).map_err(|error| failed(&error))
}

#[cfg(test)]
mod tests {
    use super::*;
    use muster_model::{LaunchNumber, Sealed};
    use rcgen::{CertifiedKey, generate_simple_self_signed};
    use rustls::{ServerConfig, crypto::ring, pki_types::PrivateKeyDer};
    use std::sync::Arc;
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
    };
    use tokio_rustls::TlsAcceptor;

    fn probe(which: Which, info: &TaskInfo) -> Probe {
        let launch = LaunchNumber::default();
        Probe { launch, which, number: 7, timeout_ms: 900, sealed: Sealed::new(info.encode_to_vec()) }
    }

    #[test]
    fn a_command_is_looked_with_by_the_supervisor() {
        let command = CommandInfo { value: Some("test -e x".into()), ..Default::default() };
        let check = mesos::HealthCheck { command: Some(command), ..Default::default() };
        let info = TaskInfo { health_check: Some(check), ..Default::default() };
        match how(&probe(Which::Health, &info)) {
            Ok(How::Command(look)) => {
                assert_eq!((look.number, look.timeout_ms, &*look.program), (7, 900, "/bin/sh"));
                assert_eq!(look.args, ["-c", "test -e x"]);
            }
            other => panic!("{other:?}"),
        }
        assert!(how(&probe(Which::Check, &info)).is_err());
    }

    #[tokio::test]
    async fn a_port_with_tls_is_reached_whatever_its_certificate() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = u32::from(listener.local_addr().unwrap().port());
        let http =
            mesos::health_check::HttpCheckInfo { port, scheme: Some("https".into()), ..Default::default() };
        let check = mesos::HealthCheck { http: Some(http), ..Default::default() };
        let info = TaskInfo { health_check: Some(check), ..Default::default() };
        assert_eq!(refused(&info), None);
        let how = || how(&probe(Which::Health, &info)).unwrap();
        let CertifiedKey { cert, signing_key } =
            generate_simple_self_signed(vec!["elsewhere.example".into()]).unwrap();
        let key = PrivateKeyDer::try_from(signing_key.serialize_der()).unwrap();
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![cert.der().clone()], key)
            .unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let server = tokio::spawn(async move {
            let mut secured = acceptor.accept(listener.accept().await.unwrap().0).await.unwrap();
            let mut bytes = [0; 1024];
            let n = secured.read(&mut bytes).await.unwrap();
            secured.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await.unwrap();
            // The next one speaks no TLS.
            let (mut plain, _) = listener.accept().await.unwrap();
            plain.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
            String::from_utf8_lossy(&bytes[..n]).into_owned()
        });
        assert_eq!(reached(how(), 10_000).await, Ok(CheckResult::Status(200)));
        assert!(reached(how(), 10_000).await.is_err_and(|why| why.contains("TLS")));
        assert!(server.await.unwrap().starts_with("GET / HTTP/1.1\r\n"));
    }

    #[tokio::test]
    async fn ports_are_reached_and_given_up() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = tokio::spawn(async move {
            let mut heard = Vec::new();
            for answer in
                ["HTTP/1.1 204 No Content\r\n\r\n", "", "HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n"]
            {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut bytes = [0; 1024];
                let n = if answer.is_empty() { 0 } else { stream.read(&mut bytes).await.unwrap() };
                heard.push(String::from_utf8_lossy(&bytes[..n]).into_owned());
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
            (listener, heard)
        });
        let http = || How::Http { address, path: "/well?x".into(), secure: false };
        assert_eq!(reached(http(), 10_000).await, Ok(CheckResult::Status(204)));
        assert_eq!(reached(How::Tcp { address }, 10_000).await, Ok(CheckResult::Connected(true)));
        assert_eq!(reached(http(), 10_000).await, Ok(CheckResult::Status(503)));
        let (listener, heard) = server.await.unwrap();
        assert!(heard[0].starts_with("GET /well?x HTTP/1.1\r\n"), "{heard:?}");
        // It is not accepted, and so not answered.
        assert!(reached(http(), 50).await.is_err_and(|why| why.contains("50 ms")));
        drop(listener);
        assert_eq!(reached(How::Tcp { address }, 10_000).await, Ok(CheckResult::Connected(false)));
    }
}
