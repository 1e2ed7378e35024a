// Reads an epoch from standard input, and prints how many rows and batches it has, and a checksum of each column.
//
//     c++ -std=c++20 -O2 -o read_epoch read_epoch.cpp $(pkg-config --cflags --libs arrow)
//     curl -sSf 'http://127.0.0.1:8080/v1/datasets/shapes/epochs/3/batches?schedule=cifar10-pba' | ./read_epoch

#include <arrow/api.h>
#include <arrow/extension_type.h>
#include <arrow/io/stdio.h>
#include <arrow/ipc/reader.h>

#include <cstdint>
#include <cstdio>
#include <iostream>
#include <string>

// FNV-1a of 64 bits.
struct Checksum {
  uint64_t value = 0xcbf29ce484222325;

  void Add(const uint8_t* bytes, int64_t count) {
    for (int64_t at = 0; at < count; ++at) value = (value ^ bytes[at]) * 0x100000001b3;
  }
};

// Adds the bytes of a column: of a tensor, those of all its pixels. Nothing is null.
void Add(Checksum& checksum, const arrow::Array& column) {
  if (column.type_id() == arrow::Type::EXTENSION) {
    Add(checksum, *static_cast<const arrow::ExtensionArray&>(column).storage());
  } else if (column.type_id() == arrow::Type::FIXED_SIZE_LIST) {
    const auto& list = static_cast<const arrow::FixedSizeListArray&>(column);
    Add(checksum, *list.values()->Slice(list.value_offset(0), list.length() * list.value_length()));
  } else {
    const int64_t width = static_cast<const arrow::FixedWidthType&>(*column.type()).bit_width() / 8;
    const uint8_t* bytes = column.data()->buffers[1]->data();
    checksum.Add(bytes + column.offset() * width, column.length() * width);
  }
}

arrow::Status ReadEpoch() {
  arrow::io::StdinStream input;
  ARROW_ASSIGN_OR_RAISE(auto reader, arrow::ipc::RecordBatchStreamReader::Open(&input));
  const std::string names[] = {"image", "label", "index"};
  Checksum checksums[3];
  int64_t rows = 0, batches = 0;
  while (true) {
    ARROW_ASSIGN_OR_RAISE(auto batch, reader->Next());
    if (!batch) break;
    for (int at = 0; at < 3; ++at) {
      const auto column = batch->GetColumnByName(names[at]);
      if (!column) return arrow::Status::Invalid("there is no column ", names[at]);
      Add(checksums[at], *column);
    }
    rows += batch->num_rows();
    ++batches;
  }
  // A stream of Arrow may end anywhere between two batches, so its metadata says how many there are.
  if (!reader->schema()->metadata()) return arrow::Status::Invalid("this is no epoch: it has no metadata");
  ARROW_ASSIGN_OR_RAISE(const std::string all_rows, reader->schema()->metadata()->Get("pba.rows"));
  ARROW_ASSIGN_OR_RAISE(const std::string all_batches, reader->schema()->metadata()->Get("pba.batches"));
  if (std::to_string(rows) != all_rows || std::to_string(batches) != all_batches) {
    return arrow::Status::IOError("the stream was cut: ", rows, " of ", all_rows, " rows, ", batches, " of ",
                                  all_batches, " batches");
  }
  std::printf("rows %lld\nbatches %lld\n", static_cast<long long>(rows), static_cast<long long>(batches));
  for (int at = 0; at < 3; ++at) {
    std::printf("%s %016llx\n", names[at].c_str(), static_cast<unsigned long long>(checksums[at].value));
  }
  return arrow::Status::OK();
}

int main() {
  const arrow::Status status = ReadEpoch();
  if (!status.ok()) std::cerr << "error: " << status.message() << "\n";
  return status.ok() ? 0 : 1;
}
