#include "common/tensors/png.h"

#include <png.h>

#include <algorithm>
#include <csetjmp>
#include <cstddef>
#include <cstring>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "common/base/status_macros.h"

namespace ddpo {
namespace {

constexpr int kChannels = 3;

// Bytes that are being read, and the message of the error that ended it. libpng jumps back to
// png_jmpbuf on an error: no object with a destructor may be made between setjmp and its last call.
struct Source {
  absl::Span<const uint8_t> bytes;
  size_t at = 0;
  char message[128] = "";
};

void TakeBytes(png_structp png, png_bytep out, size_t count) {
  auto* source = static_cast<Source*>(png_get_io_ptr(png));
  if (count > source->bytes.size() - source->at) png_error(png, "the file ends too early");
  std::memcpy(out, source->bytes.data() + source->at, count);
  source->at += count;
}

void KeepMessage(png_structp png, png_const_charp message) {
  auto* text = static_cast<char*>(png_get_error_ptr(png));
  std::snprintf(text, sizeof(Source::message), "%s", message);
  png_longjmp(png, 1);
}

void IgnoreWarning(png_structp, png_const_charp) {}

struct Reader {
  Source source;
  png_structp png = nullptr;
  png_infop info = nullptr;

  explicit Reader(absl::Span<const uint8_t> bytes) : source{bytes} {
    png =
        png_create_read_struct(PNG_LIBPNG_VER_STRING, source.message, &KeepMessage, &IgnoreWarning);
    info = png_create_info_struct(png);
    png_set_read_fn(png, &source, &TakeBytes);
    // Sizes are the caller's to judge, from ReadPngSize.
    png_set_user_limits(png, PNG_UINT_31_MAX, PNG_UINT_31_MAX);
  }
  ~Reader() { png_destroy_read_struct(&png, &info, nullptr); }
  Reader(const Reader&) = delete;

  absl::Status Error() const {
    return absl::InvalidArgumentError(absl::StrCat("PNG: ", source.message));
  }

  absl::Status ReadHeader() {
    if (setjmp(png_jmpbuf(png)) != 0) return Error();
    png_read_info(png, info);
    return absl::OkStatus();
  }

  // After the header: says how rows come out, and how many passes there are.
  absl::StatusOr<int> StartRows() {
    if (setjmp(png_jmpbuf(png)) != 0) return Error();
    png_set_expand(png);
    png_set_scale_16(png);
    png_set_gray_to_rgb(png);
    png_set_strip_alpha(png);
    const int passes = png_set_interlace_handling(png);
    png_read_update_info(png, info);
    return passes;
  }

  absl::Status ReadRows(int passes, Image* image) {
    const size_t stride = static_cast<size_t>(image->width) * kChannels;
    if (setjmp(png_jmpbuf(png)) != 0) return Error();
    for (int pass = 0; pass < passes; ++pass) {
      for (int y = 0; y < image->height; ++y) {
        png_read_row(png, image->rgb.data() + static_cast<size_t>(y) * stride, nullptr);
      }
    }
    png_read_end(png, nullptr);
    return absl::OkStatus();
  }
};

struct Writer {
  std::vector<uint8_t> bytes;
  char message[128] = "";
  png_structp png = nullptr;
  png_infop info = nullptr;

  Writer() {
    png = png_create_write_struct(PNG_LIBPNG_VER_STRING, message, &KeepMessage, &IgnoreWarning);
    info = png_create_info_struct(png);
  }
  ~Writer() { png_destroy_write_struct(&png, &info); }
  Writer(const Writer&) = delete;

  static void Append(png_structp png, png_bytep data, size_t count) {
    auto* writer = static_cast<Writer*>(png_get_io_ptr(png));
    writer->bytes.insert(writer->bytes.end(), data, data + count);
  }

  absl::Status Write(const Image& image) {
    if (setjmp(png_jmpbuf(png)) != 0) return absl::InternalError(absl::StrCat("PNG: ", message));
    png_set_write_fn(png, this, &Writer::Append, nullptr);
    png_set_IHDR(png, info, static_cast<png_uint_32>(image.width),
                 static_cast<png_uint_32>(image.height), 8, PNG_COLOR_TYPE_RGB, PNG_INTERLACE_NONE,
                 PNG_COMPRESSION_TYPE_DEFAULT, PNG_FILTER_TYPE_DEFAULT);
    png_write_info(png, info);
    for (int y = 0; y < image.height; ++y) {
      png_write_row(png, image.rgb.data() + static_cast<size_t>(y) * image.width * kChannels);
    }
    png_write_end(png, nullptr);
    return absl::OkStatus();
  }
};

}  // namespace

absl::StatusOr<std::vector<uint8_t>> EncodePng(const Image& image) {
  if (image.width < 1 || image.height < 1 ||
      image.rgb.size() != static_cast<size_t>(image.width) * image.height * kChannels) {
    return absl::InvalidArgumentError(absl::StrCat("PNG: cannot encode an image of ", image.width,
                                                   " × ", image.height, " pixels and ",
                                                   image.rgb.size(), " bytes"));
  }
  Writer writer;
  DDPO_RETURN_IF_ERROR(writer.Write(image));
  return std::move(writer.bytes);
}

absl::StatusOr<ImageSize> ReadPngSize(absl::Span<const uint8_t> bytes) {
  Reader reader(bytes);
  DDPO_RETURN_IF_ERROR(reader.ReadHeader());
  return ImageSize{png_get_image_width(reader.png, reader.info),
                   png_get_image_height(reader.png, reader.info)};
}

absl::StatusOr<Image> DecodePng(absl::Span<const uint8_t> bytes) {
  Reader reader(bytes);
  DDPO_RETURN_IF_ERROR(reader.ReadHeader());
  Image image{static_cast<int>(png_get_image_width(reader.png, reader.info)),
              static_cast<int>(png_get_image_height(reader.png, reader.info)),
              {}};
  DDPO_ASSIGN_OR_RETURN(const int passes, reader.StartRows());
  image.rgb.resize(static_cast<size_t>(image.width) * image.height * kChannels);
  DDPO_RETURN_IF_ERROR(reader.ReadRows(passes, &image));
  return image;
}

}  // namespace ddpo
