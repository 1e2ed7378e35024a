//! The models: what threads of the daemon do with what they share, and what must hold whatever their order.

mod admission;
mod common;
mod memory;
mod work;

use crate::model::Model;

pub(crate) const ALL: &[Model] = &[
    Model::new("the budget and its shares are never exceeded, and every byte comes back", memory::budget),
    Model::new("a stream gets its own batch back and never sleeps through that", memory::own_batch),
    Model::new("idle buffers make room where it is needed, and no byte is lost", memory::idle_buffers),
    Model::new("a buffer that comes back while room is made is kept or freed", memory::returned_buffers),
    Model::new("a turn goes to one at a time, and past those who have left", admission::turns),
    Model::new("turns go from client to client", admission::turns_in_turn),
    Model::new(
        "permits of streams are bounded, and come back with the memory they count",
        admission::permits,
    ),
    Model::new("memory that permits count is bounded for each client", admission::memory_of_permits),
    Model::new("connections are bounded, and each is open as long as anything of it", admission::connections),
    Model::new("every part is done once, the last sees all, and no worker sleeps through work", work::work),
    Model::new("work whose reader leaves ends, and so do its workers", work::work_left),
    Model::new("work that panics is answered so, and no worker is lost", work::work_panics),
    Model::new("work that fails is answered once, and the next is done", work::work_fails),
    Model::new("a client waits for at most one part of another", work::clients_in_turn),
    Model::new("a slot is written by one, and not while its client holds it", memory::slots),
    Model::new(
        "shared memory is reserved until stream, worker and client have left it",
        memory::shared_memory,
    ),
    Model::new("a fault is found in the map that it is in, whatever becomes of the others", memory::areas),
    Model::new("the decoded cache holds what it has reserved and no more", memory::decoded_cache),
];
