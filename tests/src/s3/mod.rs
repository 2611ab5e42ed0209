//! An S3 server inside the test: HTTP on a port of 127.0.0.1, signatures checked, one bucket in memory. It is strict where
//! S3 is, atomic, and has the faults that no real server shows on request.

mod bucket;
mod faults;

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use mithril_engine::object::s3::{S3Config, S3Credentials};
use s3s::auth::SimpleAuth;
use s3s::service::{S3Service, S3ServiceBuilder};
use tokio::net::TcpListener;
use tokio::sync::oneshot;

use self::bucket::Bucket;
use self::faults::Dice;
pub use self::faults::S3Faults;

/// The one bucket.
pub const BUCKET: &str = "models";
/// The one user, and the secret that signatures are checked with.
pub const ACCESS_KEY: &str = "AKIDMITHRILTESTS";
const SECRET: &str = "a secret of tests and of nothing else";

/// What a request is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Kind {
    /// `GetObject`
    Get,
    /// `HeadObject`
    Head,
    /// `PutObject`
    Put,
    /// `ListObjectsV2`
    List,
    /// `DeleteObject`
    Delete,
    /// `CreateMultipartUpload`
    Begin,
    /// `UploadPart`
    Part,
    /// `CompleteMultipartUpload`
    Complete,
    /// `AbortMultipartUpload`
    Abort,
}

/// A server, which stops when it is dropped.
#[derive(Debug)]
pub struct S3Server {
    address: SocketAddr,
    shared: Arc<Shared>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

/// What connections share with the test.
#[derive(Debug)]
struct Shared {
    dice: Mutex<Dice>,
    counts: Mutex<BTreeMap<Kind, u64>>,
    page: AtomicUsize,
    bucket: Mutex<Bucket>,
}

impl Shared {
    fn dice(&self) -> MutexGuard<'_, Dice> {
        self.dice.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn bucket(&self) -> MutexGuard<'_, Bucket> {
        self.bucket.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn counts(&self) -> MutexGuard<'_, BTreeMap<Kind, u64>> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl S3Server {
    /// Starts one, with threads of its own.
    ///
    /// # Panics
    /// If no port can be had.
    pub fn start() -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .expect("a runtime for the server");
        // Not tokio's: the caller may be in a runtime of its own, where one cannot wait for another.
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port for the server");
        listener.set_nonblocking(true).expect("a socket that does not block");
        let address = listener.local_addr().expect("the server has an address");
        let shared = Arc::new(Shared {
            dice: Mutex::default(),
            counts: Mutex::default(),
            page: AtomicUsize::new(1000),
            bucket: Mutex::default(),
        });
        let mut builder = S3ServiceBuilder::new(bucket::Service(Arc::clone(&shared)));
        builder.set_auth(SimpleAuth::from_single(ACCESS_KEY, SECRET));
        let service = builder.build();
        let (stop, stopped) = oneshot::channel();
        let serving = Arc::clone(&shared);
        let thread = std::thread::spawn(move || {
            runtime.block_on(async {
                let listener = TcpListener::from_std(listener).expect("a socket of the runtime");
                let serving = serve(listener, service, serving);
                tokio::select! { () = serving => (), _ = stopped => () }
            });
            // Connections that never answer are not waited for.
            runtime.shutdown_background();
        });
        Self { address, shared, stop: Some(stop), thread: Some(thread) }
    }

    /// `http://127.0.0.1:PORT`
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// How to reach it, with the right credentials. Sends nothing twice, so that tests see each error.
    pub fn config(&self) -> S3Config {
        S3Config {
            endpoint_url: Some(self.endpoint()),
            region: Some("us-east-1".to_owned()),
            credentials: Some(S3Credentials::new(ACCESS_KEY, SECRET, None)),
            attempts: 1,
            ..S3Config::new(BUCKET)
        }
    }

    /// Other faults from now on; their dice begin anew.
    pub fn set_faults(&self, faults: S3Faults) {
        *self.shared.dice() = Dice::new(faults);
    }

    /// Objects on a page of a listing from now on.
    pub fn set_page(&self, objects: usize) {
        self.shared.page.store(objects, Ordering::Relaxed);
    }

    /// Requests so far of this kind, those with faults too.
    pub fn count(&self, kind: Kind) -> u64 {
        self.shared.counts().get(&kind).copied().unwrap_or(0)
    }

    /// All requests so far.
    pub fn counts(&self) -> BTreeMap<Kind, u64> {
        self.shared.counts().clone()
    }

    /// Uploads that neither ended nor were aborted.
    pub fn open_uploads(&self) -> usize {
        self.shared.bucket().uploads()
    }
}

impl Drop for S3Server {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

async fn serve(listener: TcpListener, service: S3Service, shared: Arc<Shared>) {
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        let (service, shared) = (service.clone(), Arc::clone(&shared));
        let _ = stream.set_nodelay(true);
        tokio::spawn(async move {
            let answers =
                service_fn(move |request| faults::answer(service.clone(), Arc::clone(&shared), request));
            let connection = hyper::server::conn::http1::Builder::new();
            // A client that went away, or an answer that a fault kept back.
            let _ = connection.serve_connection(TokioIo::new(stream), answers).await;
            Ok::<(), Infallible>(())
        });
    }
}
