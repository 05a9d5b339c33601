#!/usr/bin/env python3
"""Scores images with a reward server of which it knows nothing but the address.

    reward_client.py 127.0.0.1:50061 --scorer jpeg_compressibility IMAGE…
                     [--prompt TEXT] [--job] [--tls-ca FILE [--tls-cert FILE --tls-key FILE]] [--token-file FILE]

Lists the scorers, scores the images in calls that wait for the answer, or, with --job, submits them as
one job, waits for its end and pages through the results. Prints a line for each image: its score or
error, a tab, its name. Exit code 2: some images have no score.
"""
import argparse
import pathlib
import sys
import uuid

import grpc
from reflected_services import ReflectedServices

# A message holds 64 MB at most unless the server is told otherwise.
ITEMS_TOGETHER = 32
PAGE = 100
ENDED = ("JOB_STATE_SUCCEEDED", "JOB_STATE_FAILED", "JOB_STATE_CANCELLED")


def connect(address, tls_ca=None, tls_cert=None, tls_key=None, token_file=None):
    """The server's services. Plain text unless tls_ca is given."""
    read = lambda path: pathlib.Path(path).read_bytes() if path else None
    metadata = ()
    if token_file:
        metadata = (("authorization", "Bearer " + pathlib.Path(token_file).read_text().split()[0]),)
    if not tls_ca:
        return ReflectedServices(grpc.insecure_channel(address), metadata)
    credentials = grpc.ssl_channel_credentials(read(tls_ca), read(tls_key), read(tls_cert))
    return ReflectedServices(grpc.secure_channel(address, credentials), metadata)


def list_scorers(services):
    return services["ddpo.reward.v1.RewardService"].ListScorers({}).scorers


def groups(items):
    for start in range(0, len(items), ITEMS_TOGETHER):
        yield items[start:start + ITEMS_TOGETHER]


def score(services, scorer, items):
    """The items' results, in their order. Items are ScoreItem as dictionaries."""
    scoring = services["ddpo.reward.v1.RewardService"]
    for group in groups(items):
        yield from scoring.Score({"scorer": scorer, "items": group}, timeout=300).results


def submit(services, scorer, items, request_id=None):
    """The job that was accepted; the same request_id and items again are the same job."""
    jobs = services["ddpo.reward.v1.RewardJobs"]
    first = {"request_id": request_id or str(uuid.uuid4()), "scorer": scorer, "items_total": len(items)}
    messages = [first] + [{"items": group} for group in groups(items)]
    return jobs.SubmitJob(iter(messages), timeout=300)


def state_name(job):
    return job.DESCRIPTOR.fields_by_name["state"].enum_type.values_by_number[job.state].name


def wait(services, name):
    """The job once it has ended."""
    jobs = services["ddpo.reward.v1.RewardJobs"]
    while True:
        job = jobs.WaitJob({"name": name, "timeout": {"seconds": 30}})
        if state_name(job) in ENDED:
            return job


def result_pages(services, name, page_size=PAGE):
    """The job's results, a list for each page."""
    jobs = services["ddpo.reward.v1.RewardJobs"]
    token = ""
    while True:
        page = jobs.ListJobResults({"name": name, "page_size": page_size, "page_token": token})
        yield list(page.results)
        token = page.next_page_token
        if not token:
            return


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("address", help="HOST:PORT")
    parser.add_argument("images", nargs="*", help="JPEG and PNG files; none: list the scorers")
    parser.add_argument("--scorer")
    parser.add_argument("--prompt", default="", help="what the images were made from")
    parser.add_argument("--job", action="store_true", help="score in the background and wait")
    for name in ("tls-ca", "tls-cert", "tls-key", "token-file"):
        parser.add_argument("--" + name)
    flags = parser.parse_intermixed_args()
    services = connect(flags.address, flags.tls_ca, flags.tls_cert, flags.tls_key, flags.token_file)
    if not flags.images:
        for scorer in list_scorers(services):
            print(f"{scorer.name}\t{scorer.kind}\t{scorer.description}")
        return 0
    if not flags.scorer:
        parser.error("--scorer is needed to score images")
    items = [{"item_id": path, "prompt": flags.prompt,
              "image": {"encoded": pathlib.Path(path).read_bytes()}} for path in flags.images]
    if flags.job:
        job = wait(services, submit(services, flags.scorer, items).name)
        results = [result for page in result_pages(services, job.name) for result in page]
    else:
        results = list(score(services, flags.scorer, items))
    for result in results:
        if result.HasField("score"):
            print(f"{result.score.value:g}\t{result.item_id}")
        else:
            print(f"{result.error.reason}: {result.error.message}\t{result.item_id}")
    return 0 if all(result.HasField("score") for result in results) else 2


if __name__ == "__main__":
    try:
        sys.exit(main())
    except grpc.RpcError as error:
        sys.exit(f"reward_client.py: {error.code().name}: {error.details()}")
