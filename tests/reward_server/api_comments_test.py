#!/usr/bin/env python3
"""Every service, field and value of the public API has a comment.

    api_comments_test.py BIN_DIR
"""
import pathlib
import subprocess
import sys

try:
    from google.protobuf import descriptor_pb2
except ImportError as error:
    sys.exit(f"{sys.executable}: {error}; tools/build installs python3-protobuf")

PROTO = pathlib.Path(__file__).resolve().parents[2] / "proto"
FILES = ["ddpo/reward/v1/reward.proto", "ddpo/reward/v1/jobs.proto"]


def named_things(file):
    """(path, name) of all that needs a comment."""
    # The numbers are those of the fields of FileDescriptorProto and of what it holds.
    for i, message in enumerate(file.message_type):
        for j, field in enumerate(message.field):
            yield (4, i, 2, j), f"{message.name}.{field.name}"
    for i, enum in enumerate(file.enum_type):
        for j, value in enumerate(enum.value):
            yield (5, i, 2, j), f"{enum.name}.{value.name}"
    for i, service in enumerate(file.service):
        yield (6, i), service.name


descriptors = subprocess.run(
    ["protoc", f"-I{PROTO}", "-I/usr/include", "--include_source_info",
     "--descriptor_set_out=/dev/stdout", *FILES], check=True, capture_output=True).stdout
missing = []
for descriptor in descriptor_pb2.FileDescriptorSet.FromString(descriptors).file:
    commented = {tuple(place.path) for place in descriptor.source_code_info.location
                 if place.leading_comments.strip()}
    missing += [f"{descriptor.name}: {name}" for path, name in named_things(descriptor)
                if path not in commented]
if missing:
    sys.exit("without a comment:\n" + "\n".join(missing))
