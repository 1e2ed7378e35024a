// What tch does not bind, for any device. Links libc10 and libtorch_cpu only.
#include <ATen/ATen.h>
#include <ATen/Context.h>
#include <ATen/record_function.h>
#include <c10/core/AutogradState.h>
#include <c10/core/Event.h>
#include <c10/core/impl/VirtualGuardImpl.h>

#include <atomic>

#include "checked.h"

namespace {

std::atomic<int64_t> ops{0};
at::CallbackHandle ops_callback;

c10::Device cuda(int device) {
  return c10::Device(c10::DeviceType::CUDA, static_cast<c10::DeviceIndex>(device));
}

c10::Stream stream(int device, int64_t id) {
  return c10::Stream(c10::Stream::UNSAFE, cuda(device), id);
}

}  // namespace

extern "C" {

// Runs backward passes of this thread on this thread, not on one engine thread per device.
const char* pba_backward_on_caller() {
  return checked([] { c10::AutogradState::get_tls_state().set_multithreading_enabled(false); });
}

// Deterministic kernels: no atomics in reductions. cuDNN chooses by rule, or by measuring. 32 bits are 32 bits:
// by default libtorch lets cuDNN round the inputs of convolutions to TF32.
const char* pba_deterministic(bool by_measuring) {
  return checked([&] {
    at::globalContext().setDeterministicCuDNN(true);
    at::globalContext().setBenchmarkCuDNN(by_measuring);
    at::globalContext().setAllowTF32CuDNN(false);
    at::globalContext().setAllowTF32CuBLAS(false);
  });
}

// Counts the operators that are called, to say what a step costs.
const char* pba_ops_start() {
  return checked([] {
    ops = 0;
    ops_callback = at::addGlobalCallback(
        at::RecordFunctionCallback([](const at::RecordFunction&) -> std::unique_ptr<at::ObserverContext> {
          ++ops;
          return nullptr;
        }).scopes({at::RecordScope::FUNCTION}));
  });
}

int64_t pba_ops_stop() {
  at::removeCallback(ops_callback);
  return ops;
}

const char* pba_stream_new(int device, int64_t* id) {
  return checked([&] {
    c10::impl::VirtualGuardImpl guard(c10::DeviceType::CUDA);
    *id = guard.getStreamFromGlobalPool(cuda(device), false).id();
  });
}

// Makes a stream the current one of this thread; gives the one before.
const char* pba_stream_swap(int device, int64_t id, int64_t* before) {
  return checked([&] {
    c10::impl::VirtualGuardImpl guard(c10::DeviceType::CUDA);
    *before = guard.exchangeStream(stream(device, id)).id();
  });
}

// Lets stream `waits` go on only after what stream `first` has been given so far.
const char* pba_stream_wait(int device, int64_t first, int64_t waits) {
  return checked([&] {
    c10::Event event(c10::DeviceType::CUDA);
    event.record(stream(device, first));
    event.block(stream(device, waits));
  });
}

const char* pba_event_new(c10::Event** out) {
  return checked([&] { *out = new c10::Event(c10::DeviceType::CUDA); });
}

const char* pba_event_free(c10::Event* event) {
  return checked([&] { delete event; });
}

// Marks what stream `id` has been given so far.
const char* pba_event_record(c10::Event* event, int device, int64_t id) {
  return checked([&] { event->record(stream(device, id)); });
}

// Lets stream `id` go on only after what was marked; an event that was never recorded holds nothing up.
const char* pba_event_block(c10::Event* event, int device, int64_t id) {
  return checked([&] { event->block(stream(device, id)); });
}

// Copies into a tensor without waiting; from pinned memory, it runs beside the computation.
const char* pba_copy_async(at::Tensor* into, const at::Tensor* from) {
  return checked([&] { into->copy_(*from, /*non_blocking=*/true); });
}

}  // extern "C"
