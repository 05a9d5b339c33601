#include "common/tensors/jpeg.h"

#include <csetjmp>
#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <string>

// After <cstdio>, which jpeglib.h needs and does not include.
#include <jpeglib.h>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "common/base/status_macros.h"

namespace ddpo {
namespace {

constexpr int kChannels = 3;
constexpr int kCmykChannels = 4;
// A progressive file has about ten. Every scan goes over all pixels, however few bytes it has, so
// that a small file of thousands would keep the decoder busy for minutes.
constexpr int kMaxScans = 500;

// libjpeg reports an error by a function that must not return: it jumps back to `recover`. No
// object with a destructor may be made between setjmp and the last libjpeg call.
struct ErrorHandler {
  jpeg_error_mgr base;
  jmp_buf recover;
  char message[JMSG_LENGTH_MAX];
};

void JumpBack(j_common_ptr info) {
  auto* handler = reinterpret_cast<ErrorHandler*>(info->err);
  info->err->format_message(info, handler->message);
  longjmp(handler->recover, 1);
}

// Warnings are damage too, as "premature end of JPEG file"; libjpeg would go on with grey.
void TreatWarningAsError(j_common_ptr info, int level) {
  if (level < 0) JumpBack(info);
}

void RefuseManyScans(j_common_ptr info) {
  if (reinterpret_cast<j_decompress_ptr>(info)->input_scan_number <= kMaxScans) return;
  auto* handler = reinterpret_cast<ErrorHandler*>(info->err);
  std::snprintf(handler->message, sizeof(handler->message), "more than %d scans", kMaxScans);
  longjmp(handler->recover, 1);
}

jpeg_error_mgr* Prepare(ErrorHandler* handler) {
  jpeg_std_error(&handler->base);
  handler->base.error_exit = &JumpBack;
  handler->base.emit_message = &TreatWarningAsError;
  return &handler->base;
}

struct Compression {
  jpeg_compress_struct info{};
  unsigned char* buffer = nullptr;
  unsigned long size = 0;
  ~Compression() {
    jpeg_destroy_compress(&info);
    std::free(buffer);
  }
};

struct Decompression {
  jpeg_decompress_struct info{};
  ~Decompression() { jpeg_destroy_decompress(&info); }
};

absl::Status Damaged(const ErrorHandler& handler) {
  return absl::InvalidArgumentError(absl::StrCat("JPEG: ", handler.message));
}

// Starts on `bytes` and reads the header.
absl::Status ReadHeader(absl::Span<const uint8_t> bytes, ErrorHandler* handler,
                        Decompression* jpeg) {
  jpeg->info.err = Prepare(handler);
  if (setjmp(handler->recover) != 0) return Damaged(*handler);
  jpeg_create_decompress(&jpeg->info);
  jpeg_mem_src(&jpeg->info, bytes.data(), bytes.size());
  jpeg_read_header(&jpeg->info, TRUE);
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::vector<uint8_t>> EncodeJpeg(const Image& image, int quality) {
  if (image.width < 1 || image.height < 1 || image.width > JPEG_MAX_DIMENSION ||
      image.height > JPEG_MAX_DIMENSION ||
      image.rgb.size() != static_cast<size_t>(image.width) * image.height * kChannels) {
    return absl::InvalidArgumentError(absl::StrCat("JPEG: cannot encode an image of ", image.width,
                                                   " × ", image.height, " pixels and ",
                                                   image.rgb.size(), " bytes"));
  }
  ErrorHandler handler;
  Compression jpeg;
  jpeg.info.err = Prepare(&handler);
  if (setjmp(handler.recover) != 0) {
    return absl::InternalError(absl::StrCat("JPEG: ", handler.message));
  }
  jpeg_create_compress(&jpeg.info);
  jpeg_mem_dest(&jpeg.info, &jpeg.buffer, &jpeg.size);
  jpeg.info.image_width = static_cast<JDIMENSION>(image.width);
  jpeg.info.image_height = static_cast<JDIMENSION>(image.height);
  jpeg.info.input_components = kChannels;
  jpeg.info.in_color_space = JCS_RGB;
  jpeg_set_defaults(&jpeg.info);
  jpeg_set_quality(&jpeg.info, quality, TRUE);
  jpeg_start_compress(&jpeg.info, TRUE);
  while (jpeg.info.next_scanline < jpeg.info.image_height) {
    // libjpeg does not write to the row; its type just is not const.
    auto* row = const_cast<uint8_t*>(image.rgb.data()) +
                static_cast<size_t>(jpeg.info.next_scanline) * image.width * kChannels;
    jpeg_write_scanlines(&jpeg.info, &row, 1);
  }
  jpeg_finish_compress(&jpeg.info);
  return std::vector<uint8_t>(jpeg.buffer, jpeg.buffer + jpeg.size);
}

absl::StatusOr<ImageSize> ReadJpegSize(absl::Span<const uint8_t> bytes) {
  ErrorHandler handler;
  Decompression jpeg;
  DDPO_RETURN_IF_ERROR(ReadHeader(bytes, &handler, &jpeg));
  return ImageSize{jpeg.info.image_width, jpeg.info.image_height};
}

absl::StatusOr<Image> DecodeJpeg(absl::Span<const uint8_t> bytes) {
  ErrorHandler handler;
  Decompression jpeg;
  DDPO_RETURN_IF_ERROR(ReadHeader(bytes, &handler, &jpeg));
  if (jpeg.info.num_components == kCmykChannels) {
    return absl::InvalidArgumentError("JPEG: four colours (CMYK); expected RGB or grey");
  }
  Image image{
      static_cast<int>(jpeg.info.image_width), static_cast<int>(jpeg.info.image_height), {}};
  image.rgb.resize(static_cast<size_t>(image.width) * image.height * kChannels);
  jpeg_progress_mgr progress{};
  progress.progress_monitor = &RefuseManyScans;
  if (setjmp(handler.recover) != 0) return Damaged(handler);
  jpeg.info.out_color_space = JCS_RGB;
  jpeg.info.progress = &progress;
  jpeg_start_decompress(&jpeg.info);
  while (jpeg.info.output_scanline < jpeg.info.output_height) {
    JSAMPROW row =
        image.rgb.data() + static_cast<size_t>(jpeg.info.output_scanline) * image.width * kChannels;
    jpeg_read_scanlines(&jpeg.info, &row, 1);
  }
  jpeg_finish_decompress(&jpeg.info);
  return image;
}

}  // namespace ddpo
