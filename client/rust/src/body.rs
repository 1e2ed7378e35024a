//! The body of a stream.

use arrow_buffer::Buffer;
use reqwest::Response;

use crate::address::cause;
use crate::error::ClientError;
#[cfg(target_os = "linux")]
use crate::shared_memory::SharedMemoryStream;

/// The body of an answer, from a socket or from shared memory.
pub(crate) enum Body {
    Http(Response),
    #[cfg(target_os = "linux")]
    SharedMemory(Box<SharedMemoryStream>),
}

impl Body {
    /// The next bytes of the answer; none at its end.
    pub(crate) async fn next(&mut self) -> Result<Option<Buffer>, ClientError> {
        match self {
            Body::Http(response) => match response.chunk().await {
                Ok(chunk) => Ok(chunk.map(Buffer::from)),
                Err(error) => Err(ClientError::Stream(cause(&error))),
            },
            #[cfg(target_os = "linux")]
            Body::SharedMemory(stream) => {
                stream.next().await.map_err(|error| ClientError::Stream(error.to_string()))
            }
        }
    }
}
