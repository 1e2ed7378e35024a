// CUDA graphs and device facts. A shared object of its own, loaded after libtorch_cuda.so.
#include <ATen/cuda/CUDAGraph.h>
#include <c10/cuda/CUDACachingAllocator.h>
#include <c10/cuda/CUDAFunctions.h>
#include <cuda_runtime_api.h>

#include <cstring>
#include <stdexcept>

#include "checked.h"

namespace {

using at::cuda::CUDAGraph;

const char* graph_new(CUDAGraph** out) {
  return checked([&] { *out = new CUDAGraph(); });
}

const char* graph_free(CUDAGraph* graph) {
  return checked([&] { delete graph; });
}

// Records what the current stream of this thread is given from here on, instead of running it. Takes the
// memory pool of `beside`, if that is not null.
const char* graph_begin(CUDAGraph* graph, CUDAGraph* beside) {
  return checked([&] {
    at::cuda::MempoolId_t pool = {0, 0};
    if (beside) pool = beside->pool();
    graph->capture_begin(pool, cudaStreamCaptureModeThreadLocal);
  });
}

const char* graph_end(CUDAGraph* graph) {
  return checked([&] { graph->capture_end(); });
}

// Runs it on the current stream of this thread.
const char* graph_replay(CUDAGraph* graph) {
  return checked([&] { graph->replay(); });
}

// Makes a device the current one of this thread: streams do not bring theirs along.
const char* use_device(int number) {
  return checked([&] { c10::cuda::set_device(static_cast<c10::DeviceIndex>(number)); });
}

// Gives what libtorch holds and does not use back to the device.
const char* empty_cache() {
  return checked([] { c10::cuda::CUDACachingAllocator::emptyCache(); });
}

const char* device(int number, char* name, size_t name_bytes, size_t* free_bytes, size_t* total_bytes) {
  return checked([&] {
    cudaDeviceProp properties;
    if (cudaGetDeviceProperties(&properties, number) != cudaSuccess || cudaSetDevice(number) != cudaSuccess ||
        cudaMemGetInfo(free_bytes, total_bytes) != cudaSuccess) {
      throw std::runtime_error(cudaGetErrorString(cudaGetLastError()));
    }
    std::strncpy(name, properties.name, name_bytes - 1);
    name[name_bytes - 1] = 0;
  });
}

}  // namespace

// What `Shim` in src/gpu/shim.rs declares, in the same order.
extern "C" const void* const pba_cuda[] = {
    reinterpret_cast<void*>(graph_new),   reinterpret_cast<void*>(graph_free),
    reinterpret_cast<void*>(graph_begin), reinterpret_cast<void*>(graph_end),
    reinterpret_cast<void*>(graph_replay), reinterpret_cast<void*>(device),
    reinterpret_cast<void*>(use_device),  reinterpret_cast<void*>(empty_cache),
};
