"""What an S3 server of the tests is to its users: a client, the objects, and the environment that leads there."""

from functools import cached_property

import boto3


class S3User:
    """The part of a server that users see; `url` is set by the server."""

    url: str
    config = "/dev/null"
    """AWS_CONFIG_FILE. Of DVC's it must be a file, not a device."""
    attempts: int | None = None
    """AWS_MAX_ATTEMPTS; None: as many as the client makes by itself."""

    @property
    def environment(self) -> dict[str, str]:
        return {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ACCESS_KEY_ID": "tester",
            "AWS_SECRET_ACCESS_KEY": "secret",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_CONFIG_FILE": self.config,
            "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
            **({"AWS_MAX_ATTEMPTS": str(self.attempts)} if self.attempts else {}),
        }

    def lead_here(self, patch) -> None:
        """Have s3fs find this server, by a MonkeyPatch."""
        import s3fs

        for name, value in self.environment.items():
            patch.setenv(name, value)
        s3fs.S3FileSystem.clear_instance_cache()  # of a server before; a new client takes a quarter of a second

    @cached_property
    def client(self):
        return boto3.client(
            "s3",
            endpoint_url=self.url,
            aws_access_key_id="tester",
            aws_secret_access_key="secret",
            region_name="us-east-1",
        )

    def objects(self, bucket: str, prefix: str = "") -> dict[str, bytes]:
        """Every object by its key after `prefix`, as any reader sees them."""
        found = self.client.list_objects_v2(Bucket=bucket, Prefix=prefix).get("Contents", [])
        return {
            item["Key"].removeprefix(prefix): self.client.get_object(Bucket=bucket, Key=item["Key"])["Body"].read()
            for item in found
        }
