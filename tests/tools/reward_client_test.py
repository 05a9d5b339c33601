#!/usr/bin/env python3
"""A client that knows only reflection lists scorers, scores, submits a job of 500 images, waits for it
and pages through its results, against a real ddpo-reward-server.

    reward_client_test.py BIN_DIR
"""
import contextlib
import io
import pathlib
import re
import struct
import subprocess
import sys
import tempfile
import types
import unittest
from unittest import mock
import zlib

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tools/python/examples"))

try:
    import grpc
    import reflected_services
    import reward_client
    from google.protobuf import message_factory
except ImportError as error:
    sys.exit(f"{sys.executable}: {error}; tools/build installs python3-grpcio and python3-protobuf")

BIN_DIR = pathlib.Path(sys.argv.pop(1))
IMAGES = 500


def pixels(index, width, height):
    """RGB bytes that are another picture for each index."""
    return bytes((x * (index % 7 + 1) + y * (index % 5 + 2) * channel + index) % 256
                 for y in range(height) for x in range(width) for channel in range(3))


def png(rgb, width, height):
    def chunk(kind, data):
        return (struct.pack(">I", len(data)) + kind + data
                + struct.pack(">I", zlib.crc32(kind + data)))

    rows = b"".join(b"\0" + rgb[y * width * 3:(y + 1) * width * 3] for y in range(height))
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows))
            + chunk(b"IEND", b""))


def item(index, kind="encoded"):
    width, height = 16 + index % 9, 12 + index % 4
    rgb = pixels(index, width, height)
    image = ({"encoded": png(rgb, width, height)} if kind == "encoded" else
             {"raw": {"width": width, "height": height, "rgb": rgb}})
    return {"item_id": f"image {index}", "image": image}


class ReflectionClientTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.TemporaryDirectory()
        cls.server = subprocess.Popen(
            [BIN_DIR / "ddpo-reward-server", "--listen", "127.0.0.1:0", "--scorers",
             "jpeg_compressibility,jpeg_incompressibility", "--jobs-database",
             pathlib.Path(cls.folder.name, "jobs.db")], stderr=subprocess.PIPE, text=True)
        log = []
        for line in cls.server.stderr:
            log.append(line)
            if "listening on " in line:
                break
        else:
            raise RuntimeError("the server ended: " + "".join(log))
        cls.address = log[-1].split()[-1]
        cls.services = reward_client.connect(cls.address)

    @classmethod
    def tearDownClass(cls):
        cls.server.terminate()
        cls.server.communicate()
        cls.folder.cleanup()

    def test_lists_the_scorers(self):
        scorers = {scorer.name: scorer for scorer in reward_client.list_scorers(self.services)}
        self.assertEqual(sorted(scorers), ["jpeg_compressibility", "jpeg_incompressibility"])
        scorer = scorers["jpeg_compressibility"]
        self.assertEqual(scorer.kind, "jpeg_size")
        self.assertRegex(scorer.digest, "^[0-9a-f]{64}$")
        self.assertEqual(scorer.max_score, 0)
        self.assertFalse(scorer.needs_prompt)
        self.assertGreater(scorer.max_batch_size, 0)
        self.assertTrue(scorer.higher_is_better)

    def test_scores_what_it_sends_encoded_and_raw(self):
        items = [item(3), item(3, "raw"), {"item_id": "broken", "image": {"encoded": b"no image"}}]
        encoded, raw, broken = reward_client.score(self.services, "jpeg_incompressibility", items)
        self.assertEqual(encoded.item_id, "image 3")
        self.assertGreater(encoded.score.value, 0)
        self.assertEqual(encoded.score.value * 1000, encoded.score.details["bytes"])
        self.assertEqual(encoded.score.value, raw.score.value)
        self.assertFalse(broken.HasField("score"))
        self.assertEqual(broken.error.reason, "IMAGE_DECODE_FAILED")

    def test_a_job_of_500_images_is_awaited_and_paged_through(self):
        items = [item(index) for index in range(IMAGES)]
        submitted = reward_client.submit(self.services, "jpeg_incompressibility", items, "job of 500")
        self.assertRegex(submitted.name, "^jobs/[0-9a-f]{32}$")
        again = reward_client.submit(self.services, "jpeg_incompressibility", items, "job of 500")
        self.assertEqual(again.name, submitted.name)
        job = reward_client.wait(self.services, submitted.name)
        self.assertEqual(reward_client.state_name(job), "JOB_STATE_SUCCEEDED")
        self.assertEqual((job.items_total, job.items_succeeded, job.items_failed), (IMAGES, IMAGES, 0))
        pages = list(reward_client.result_pages(self.services, job.name, page_size=64))
        self.assertEqual([len(page) for page in pages], [64] * 7 + [IMAGES - 7 * 64])
        results = [result for page in pages for result in page]
        self.assertEqual([result.item_id for result in results], [item["item_id"] for item in items])
        alone = reward_client.score(self.services, "jpeg_incompressibility", items)
        self.assertEqual([result.score.value for result in results],
                         [result.score.value for result in alone])

    def test_an_error_is_a_status(self):
        with self.assertRaises(grpc.RpcError) as raised:
            list(reward_client.score(self.services, "beauty", [item(0)]))
        self.assertEqual(raised.exception.code(), grpc.StatusCode.NOT_FOUND)
        self.assertIn("this server has jpeg_compressibility", raised.exception.details())

    def test_the_program_prints_a_line_for_each_image(self):
        files = []
        for index in range(3):
            files.append(pathlib.Path(self.folder.name, f"{index}.png"))
            files[-1].write_bytes(item(index)["image"]["encoded"])
        for extra in ([], ["--job"]):
            output = subprocess.run(
                [sys.executable, ROOT / "tools/python/examples/reward_client.py", self.address,
                 "--scorer", "jpeg_incompressibility", *files, *extra],
                check=True, capture_output=True, text=True).stdout
            lines = [line.split("\t") for line in output.splitlines()]
            self.assertEqual([line[1] for line in lines], [str(file) for file in files])
            self.assertTrue(all(float(line[0]) > 0 for line in lines))


    def test_the_documented_lines_score_an_image(self):
        """The ten lines of README.md, with our own reflection in place of the package
        grpcio-reflection, which distributions don't have, and of what their protobuf lacks."""
        documented = (ROOT / "README.md").read_text()
        code = re.search(r"```python\n(import grpc\n.*?)```", documented, re.DOTALL).group(1)
        self.assertLessEqual(len([line for line in code.splitlines() if line]), 12)
        picture = pathlib.Path(self.folder.name, "picture.png")
        picture.write_bytes(item(3)["image"]["encoded"])
        code = code.replace("127.0.0.1:50061", self.address).replace("picture.png", str(picture))
        name = "grpc_reflection.v1alpha.proto_reflection_descriptor_database"
        database = types.SimpleNamespace(ProtoReflectionDescriptorDatabase=reflected_services.Reflection)
        parents = {"grpc_reflection": mock.MagicMock(), "grpc_reflection.v1alpha": mock.MagicMock()}
        output = io.StringIO()
        with mock.patch.dict(sys.modules, {**parents, name: database}), \
                mock.patch.object(message_factory, "GetMessageClass",
                                  reflected_services.message_class, create=True), \
                contextlib.redirect_stdout(output):
            exec(code, {})
        self.assertIn('item_id: "a"', output.getvalue())
        self.assertRegex(output.getvalue(), r"value: -\d")


if __name__ == "__main__":
    unittest.main(verbosity=2)
