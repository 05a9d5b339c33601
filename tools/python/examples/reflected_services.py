"""Calls gRPC services whose messages are learned from the server: no .proto file, no generated code.

    services = ReflectedServices(grpc.insecure_channel("127.0.0.1:50061"))
    scoring = services["ddpo.reward.v1.RewardService"]
    scoring.Score({"scorer": "jpeg_compressibility", "items": [{"image": {"encoded": jpeg}}]})

Needs grpcio and protobuf only, as in Debian's python3-grpcio and python3-protobuf. (The package
grpcio-reflection does the same for the part called Reflection here.)
"""
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

PACKAGE = "grpc.reflection.v1alpha"


# The class of a message type.
message_class = getattr(message_factory, "GetMessageClass", None)
if message_class is None:  # protobuf before 4.22
    def message_class(descriptor):
        return message_factory.MessageFactory(descriptor.file.pool).GetPrototype(descriptor)


def reflection_messages():
    """Request and response of reflection itself: the fields of grpc/reflection/v1alpha that are used."""
    field = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="reflection.proto", package=PACKAGE, syntax="proto3")

    def add(name, *fields):
        message = file.message_type.add(name=name)
        for number, field_name, kind, label, type_name in fields:
            message.field.add(name=field_name, number=number, type=kind, label=label,
                              type_name=type_name and f".{PACKAGE}.{type_name}")

    one, many = field.LABEL_OPTIONAL, field.LABEL_REPEATED
    add("Request", (3, "file_by_filename", field.TYPE_STRING, one, None),
        (4, "file_containing_symbol", field.TYPE_STRING, one, None))
    add("Files", (1, "file_descriptor_proto", field.TYPE_BYTES, many, None))
    add("Error", (2, "error_message", field.TYPE_STRING, one, None))
    add("Response", (4, "files", field.TYPE_MESSAGE, one, "Files"),
        (7, "error", field.TYPE_MESSAGE, one, "Error"))
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return [message_class(pool.FindMessageTypeByName(f"{PACKAGE}.{name}"))
            for name in ("Request", "Response")]


class Reflection:
    """A database for a descriptor pool that asks the server for what it does not know."""

    def __init__(self, channel, metadata=()):
        self.request, response = reflection_messages()
        self.call = channel.stream_stream(f"/{PACKAGE}.ServerReflection/ServerReflectionInfo",
                                          self.request.SerializeToString, response.FromString)
        self.metadata = metadata
        self.files = {}

    def ask(self, **question):
        answers = self.call(iter([self.request(**question)]), metadata=self.metadata, timeout=30)
        for answer in answers:
            for data in answer.files.file_descriptor_proto:
                file = descriptor_pb2.FileDescriptorProto.FromString(data)
                self.files[file.name] = file
            if answer.files.file_descriptor_proto:
                return descriptor_pb2.FileDescriptorProto.FromString(
                    answer.files.file_descriptor_proto[0])
            raise KeyError(answer.error.error_message)
        raise KeyError("the server answered nothing")

    # The two methods that a descriptor pool calls.
    def FindFileByName(self, name):
        return self.files.get(name) or self.ask(file_by_filename=name)

    def FindFileContainingSymbol(self, symbol):
        return self.ask(file_containing_symbol=symbol)


class ReflectedServices:
    """The server's services by their full names; each has its methods as attributes."""

    def __init__(self, channel, metadata=()):
        """metadata goes with every call, as in (("authorization", "Bearer 0123…"),)."""
        self.channel = channel
        self.metadata = metadata
        self.pool = descriptor_pool.DescriptorPool(Reflection(channel, metadata))

    def __getitem__(self, name):
        return Service(self, self.pool.FindServiceByName(name))


class Service:
    """Methods take messages, or dictionaries of their fields; streams of requests are iterables."""

    def __init__(self, services, descriptor):
        self.messages = {}
        for method in descriptor.methods:
            request, response = map(message_class, (method.input_type, method.output_type))
            self.messages[method.name] = (request, response)
            setattr(self, method.name, self.bind(services, descriptor, method, request, response))

    @staticmethod
    def bind(services, service, method, request, response):
        streams = descriptor_pb2.MethodDescriptorProto()
        method.CopyToProto(streams)
        kind = "_".join("stream" if streaming else "unary"
                        for streaming in (streams.client_streaming, streams.server_streaming))
        call = getattr(services.channel, kind)(f"/{service.full_name}/{method.name}",
                                               request.SerializeToString, response.FromString)

        def message(fields):
            return request(**fields) if isinstance(fields, dict) else fields

        def invoke(argument, timeout=60):
            argument = map(message, argument) if streams.client_streaming else message(argument)
            return call(argument, timeout=timeout, metadata=services.metadata)

        return invoke
