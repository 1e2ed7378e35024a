//! A stream of one epoch.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use arrow_array::RecordBatch;
use arrow_buffer::Buffer;
use arrow_ipc::reader::StreamDecoder;
use arrow_schema::SchemaRef;
use pba_wire::stream;
use pba_wire::{EpochRequest, Query};

use crate::body::Body;
use crate::error::ClientError;
use crate::replicas::{ATTEMPTS_MAX, PAUSE, Replicas};
use crate::request::segment;

/// Sides of images are shorter, so that no product of them overflows.
const SIDE_MAX: u32 = 1 << 14;

/// How long client and server waited for each other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Waits {
    /// Time until the stream began, and in [`EpochStream::next`]: the client waited for the server and the network.
    pub for_server: Duration,
    /// Time between calls of [`EpochStream::next`]: the server waited for the client.
    pub for_client: Duration,
}

/// Batches of one epoch, in order, each exactly once.
pub struct EpochStream {
    replicas: Replicas,
    dataset: String,
    epoch: u32,
    request: EpochRequest,
    replica: usize,
    connection: Option<Connection>,
    schema: SchemaRef,
    /// Total batches and rows of the answer.
    expected: u64,
    rows_expected: u64,
    received: u64,
    rows_received: u64,
    shares_memory: bool,
    resumes: u32,
    bytes: u64,
    waits: Waits,
    since: Instant,
}

struct Connection {
    body: Body,
    decoder: StreamDecoder,
    /// Received bytes that are not decoded yet.
    rest: Buffer,
    /// A batch that was decoded together with the schema.
    batch: Option<RecordBatch>,
    /// The announced part of the answer that has not arrived yet.
    batches_left: u64,
    rows_left: u64,
}

impl Connection {
    /// Decodes up to the next batch.
    fn decode(&mut self) -> Result<Option<RecordBatch>, ClientError> {
        // Of nonsense in a header arrow's decoder makes a panic here and there.
        let decoded = catch_unwind(AssertUnwindSafe(|| self.decoder.decode(&mut self.rest)));
        match decoded {
            Ok(decoded) => decoded.map_err(|error| ClientError::Stream(error.to_string())),
            Err(_) => Err(ClientError::Stream("an invalid Arrow message".to_owned())),
        }
    }
}

/// The result of one attempt to read.
enum Read {
    Schema(SchemaRef),
    Batch(RecordBatch),
    End,
}

impl EpochStream {
    pub(crate) async fn open(
        replicas: Replicas,
        dataset: String,
        epoch: u32,
        request: EpochRequest,
    ) -> Result<EpochStream, ClientError> {
        let mut stream = EpochStream {
            replicas,
            dataset,
            epoch,
            request,
            replica: 0,
            connection: None,
            schema: SchemaRef::new(arrow_schema::Schema::empty()),
            expected: 0,
            rows_expected: 0,
            received: 0,
            rows_received: 0,
            shares_memory: false,
            resumes: 0,
            bytes: 0,
            waits: Waits::default(),
            since: Instant::now(),
        };
        let start = Instant::now();
        let replicas = stream.replicas.clone();
        let opened = replicas.first(async |replica| {
            stream.replica = replica;
            let schema = stream.connect().await?;
            stream.expected = number(&schema, stream::BATCHES)?;
            stream.rows_expected = number(&schema, stream::ROWS)?;
            stream.schema = schema;
            Ok(())
        });
        opened.await?;
        stream.since = Instant::now();
        stream.waits.for_server = stream.since - start;
        Ok(stream)
    }

    /// Schema of the stream, with the server's metadata.
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// Total batches of the answer.
    pub fn batches(&self) -> u64 {
        self.expected
    }

    /// Total rows of the answer.
    ///
    /// # Errors
    /// When the server did not announce them.
    pub fn rows(&self) -> Result<u64, ClientError> {
        number(&self.schema, stream::ROWS)
    }

    /// How often the stream was cut and resumed.
    pub fn resumes(&self) -> u32 {
        self.resumes
    }

    /// Whether batches come, or last came, through shared memory.
    pub fn shares_memory(&self) -> bool {
        self.shares_memory
    }

    /// Bytes received.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// How long client and server have waited for each other so far.
    pub fn waits(&self) -> Waits {
        self.waits
    }

    /// The next batch; none when the epoch is complete.
    ///
    /// # Errors
    /// When the stream was cut and could not be resumed, or resumed with other data. The batches so far
    /// are correct either way.
    pub async fn next(&mut self) -> Result<Option<RecordBatch>, ClientError> {
        let start = Instant::now();
        self.waits.for_client += start - self.since;
        let batch = self.next_batch().await;
        if batch.is_err() {
            // Its further data cannot be trusted, not even by a later call.
            self.connection = None;
        }
        self.since = Instant::now();
        self.waits.for_server += self.since - start;
        batch
    }

    async fn next_batch(&mut self) -> Result<Option<RecordBatch>, ClientError> {
        if self.received == self.expected {
            return self.finish().await.map(|()| None);
        }
        let mut attempts = 0;
        loop {
            let failure = match self.try_next().await {
                Ok(batch) => {
                    self.received += 1;
                    self.rows_received += batch.num_rows() as u64;
                    return Ok(Some(batch));
                }
                Err(error) if error.is_passing() || error.is_busy() => error,
                Err(error) => return Err(error),
            };
            self.connection = None;
            attempts += 1;
            let replicas = self.replicas.replicas() as u32;
            if attempts > ATTEMPTS_MAX * replicas {
                return Err(ClientError::Cut {
                    received: self.received,
                    expected: self.expected,
                    attempts: ATTEMPTS_MAX * replicas,
                    reason: failure.to_string(),
                });
            }
            // Each replica is tried once without a pause, and so is a single one that cut a stream.
            if attempts.is_multiple_of(replicas) && attempts > replicas {
                tokio::time::sleep(PAUSE * 2u32.pow(attempts / replicas - 2)).await;
            }
            self.replica += 1;
            self.resumes += 1;
        }
    }

    /// Reads the end of the stream. A cut after the last batch loses nothing, but an extra batch is an
    /// error.
    async fn finish(&mut self) -> Result<(), ClientError> {
        if self.connection.is_none() {
            return Ok(());
        }
        let surplus = matches!(self.read().await, Ok(Read::Batch(_)));
        self.connection = None;
        match surplus {
            true => {
                Err(ClientError::Stream(format!("it has more than the {} batches announced", self.expected)))
            }
            false => Ok(()),
        }
    }

    async fn try_next(&mut self) -> Result<RecordBatch, ClientError> {
        if self.connection.is_none() {
            let schema = self.connect().await?;
            self.check_unchanged(&schema)?;
        }
        match self.read().await? {
            Read::Batch(batch) => self.count(batch),
            Read::Schema(_) => Err(ClientError::Stream("a second schema".to_owned())),
            Read::End => Err(ClientError::Stream(format!("it ended after {} batches", self.received))),
        }
    }

    /// Requests the missing batches from the current replica, and reads the schema.
    async fn connect(&mut self) -> Result<SchemaRef, ClientError> {
        let mut request = self.request.clone();
        request.start += self.received * request.step;
        let (dataset, epoch, query) = (segment(&self.dataset), self.epoch, request.to_query());
        let mark = if query.is_empty() { "" } else { "?" };
        let path = format!("/v1/datasets/{dataset}/epochs/{epoch}/batches{mark}{query}");
        let body = self.replicas.stream(self.replica, &path).await?;
        self.shares_memory = !matches!(body, Body::Http(_));
        self.connection = Some(Connection {
            body,
            decoder: StreamDecoder::new(),
            rest: Buffer::default(),
            batch: None,
            batches_left: 0,
            rows_left: 0,
        });
        let Read::Schema(schema) = self.read().await? else {
            return Err(ClientError::Stream("it does not start with a schema".to_owned()));
        };
        let connection = self.connection.as_mut().expect("it was made above");
        connection.batches_left = number(&schema, stream::BATCHES)?;
        connection.rows_left = number(&schema, stream::ROWS)?;
        if connection.batches_left == 0 && connection.rows_left > 0 {
            return Err(ClientError::Stream("it announces rows but no batches".to_owned()));
        }
        if !is_of_images(&schema) {
            let columns = self.replicas.hide(self.replica, &columns(&schema));
            return Err(ClientError::Stream(format!(
                "its columns are not image, label and index: {columns}"
            )));
        }
        self.check(&schema, stream::EPOCH, self.epoch)?;
        self.check(&schema, stream::SEED, self.request.seed)?;
        Ok(schema)
    }

    /// Subtracts a batch from the announced rest.
    fn count(&mut self, batch: RecordBatch) -> Result<RecordBatch, ClientError> {
        let connection = self.connection.as_mut().expect("the batch came on it");
        let wrong = |what: &str| Err(ClientError::Stream(format!("it has other {what} than announced")));
        // The loop ends after the last one.
        let batches_left = connection.batches_left.saturating_sub(1);
        let Some(rows_left) = connection.rows_left.checked_sub(batch.num_rows() as u64) else {
            return wrong("rows");
        };
        if batches_left == 0 && rows_left > 0 {
            return wrong("rows");
        }
        (connection.batches_left, connection.rows_left) = (batches_left, rows_left);
        Ok(batch)
    }

    /// Decodes the next message, reading on as needed.
    async fn read(&mut self) -> Result<Read, ClientError> {
        let stall = self.replicas.stall(self.replica);
        let connection = self.connection.as_mut().expect("a connection was made");
        let had_schema = connection.decoder.schema().is_some();
        if let Some(batch) = connection.batch.take() {
            return Ok(Read::Batch(batch));
        }
        loop {
            if !connection.rest.is_empty() {
                connection.batch = connection.decode()?;
            }
            if !had_schema && let Some(schema) = connection.decoder.schema() {
                return Ok(Read::Schema(schema));
            }
            if let Some(batch) = connection.batch.take() {
                return Ok(Read::Batch(batch));
            }
            // TCP's own limit ends it first, and says the same.
            let next = tokio::time::timeout(stall, connection.body.next()).await;
            match next.unwrap_or_else(|_| Err(ClientError::Stream(format!("no data for {stall:?}"))))? {
                Some(bytes) => {
                    self.bytes += bytes.len() as u64;
                    connection.rest = bytes;
                }
                None => return Ok(Read::End),
            }
        }
    }

    /// The replica that resumes the stream must have the same data, and send the missing part.
    fn check_unchanged(&self, schema: &SchemaRef) -> Result<(), ClientError> {
        for key in [stream::DATASET, stream::SCHEDULE] {
            self.check(schema, key, text(&self.schema, key))?;
        }
        self.check(schema, stream::BATCHES, self.expected - self.received)?;
        // Of a server that announced too few at first, more have come.
        self.check(schema, stream::ROWS, self.rows_expected.saturating_sub(self.rows_received))?;
        if schema.fields() == self.schema.fields() {
            return Ok(());
        }
        Err(self.changed("schema", columns(schema), columns(&self.schema)))
    }

    fn check(&self, schema: &SchemaRef, key: &str, expected: impl ToString) -> Result<(), ClientError> {
        let (found, expected) = (text(schema, key), expected.to_string());
        if found == expected { Ok(()) } else { Err(self.changed(key, found.to_owned(), expected)) }
    }

    fn changed(&self, key: &str, found: String, expected: String) -> ClientError {
        let (url, found) =
            (self.replicas.address(self.replica).to_string(), self.replicas.hide(self.replica, &found));
        ClientError::Changed { url, key: key.to_owned(), found, expected }
    }
}

/// Whether the columns are those of every stream, whatever the size of its images.
fn is_of_images(schema: &SchemaRef) -> bool {
    let shape = stream::image_shape(schema).filter(|&(height, width)| height.max(width) <= SIDE_MAX);
    shape.is_some_and(|(height, width)| {
        *stream::schema(height, width, BTreeMap::new()).fields() == *schema.fields()
    })
}

fn columns(schema: &SchemaRef) -> String {
    let columns = schema.fields().iter().map(|field| format!("{}: {}", field.name(), field.data_type()));
    columns.collect::<Vec<_>>().join(", ")
}

fn text<'a>(schema: &'a SchemaRef, key: &str) -> &'a str {
    schema.metadata().get(key).map(String::as_str).unwrap_or_default()
}

fn number(schema: &SchemaRef, key: &str) -> Result<u64, ClientError> {
    let number = text(schema, key).parse().ok();
    number.ok_or_else(|| ClientError::Stream(format!("its schema has no {key}")))
}
