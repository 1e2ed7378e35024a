//! Where jobs train: one at a time on each device.

use std::collections::BTreeSet;

use pba_search::DeviceChoice;

/// A device that trains one job at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Place {
    /// All cores: a job on the CPU uses every one.
    Cpu,
    /// The GPU with this number.
    Gpu(u32),
}

impl Place {
    /// The same as a spec says it.
    pub(super) fn device(self) -> DeviceChoice {
        match self {
            Place::Cpu => DeviceChoice::Cpu,
            Place::Gpu(number) => DeviceChoice::Cuda(number),
        }
    }
}

/// The devices, and which of them are taken.
#[derive(Debug, Default)]
pub(super) struct Places {
    /// How many GPUs this machine has; none until it is known, and until then no job of `auto` has a place.
    pub(super) gpus: Option<u32>,
    taken: BTreeSet<Place>,
}

impl Places {
    /// A free device for a job that asks for one: `auto` is the first free GPU, or the CPU where there is none.
    pub(super) fn free(&self, asked: DeviceChoice) -> Option<Place> {
        let is_free = |place: &Place| !self.taken.contains(place);
        match (asked, self.gpus) {
            (DeviceChoice::Auto, None) => None,
            (DeviceChoice::Cpu, _) | (DeviceChoice::Auto, Some(0)) => Some(Place::Cpu).filter(is_free),
            (DeviceChoice::Auto, Some(gpus)) => (0..gpus).map(Place::Gpu).find(is_free),
            // Whether there is such a GPU, its trainer says.
            (DeviceChoice::Cuda(number), _) => Some(Place::Gpu(number)).filter(is_free),
        }
    }

    /// Takes a device for a job.
    pub(super) fn take(&mut self, place: Place) {
        self.taken.insert(place);
    }

    /// Frees the device of a job that has ended.
    pub(super) fn release(&mut self, place: Place) {
        self.taken.remove(&place);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gives a device to each of some jobs, as long as there are any.
    fn given(gpus: Option<u32>, jobs: &[DeviceChoice]) -> Vec<Option<Place>> {
        let mut places = Places { gpus, ..Places::default() };
        let give = |&asked: &DeviceChoice| {
            let place = places.free(asked);
            place.inspect(|&place| places.take(place))
        };
        jobs.iter().map(give).collect()
    }

    #[test]
    fn one_job_trains_on_each_device() {
        use DeviceChoice::{Auto, Cpu, Cuda};
        let [cpu, first, second] = [Place::Cpu, Place::Gpu(0), Place::Gpu(1)].map(Some);
        assert_eq!(given(None, &[Auto, Cuda(0), Cpu]), [None, first, cpu]);
        assert_eq!(given(Some(0), &[Auto, Auto, Cpu]), [cpu, None, None]);
        assert_eq!(given(Some(2), &[Auto, Auto, Auto, Cpu, Cpu]), [first, second, None, cpu, None]);
        assert_eq!(given(Some(2), &[Cuda(0), Auto, Cuda(0), Cuda(1)]), [first, second, None, None]);
        assert_eq!(given(Some(1), &[Cuda(1), Cuda(1), Auto]), [second, None, first]);
    }

    #[test]
    fn a_device_is_free_again_when_its_job_has_ended() {
        let mut places = Places { gpus: Some(1), ..Places::default() };
        places.take(Place::Gpu(0));
        assert_eq!(places.free(DeviceChoice::Auto), None);
        places.release(Place::Gpu(0));
        assert_eq!(places.free(DeviceChoice::Auto), Some(Place::Gpu(0)));
    }
}
