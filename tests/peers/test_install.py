#!/usr/bin/env python3
"""Tests of the installer that need no network: when it has something to do, and how it fails."""

import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import unittest

import install

HERE = pathlib.Path(__file__).resolve().parent


class Complete(unittest.TestCase):
    def setUp(self):
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.prefix = pathlib.Path(directory.name)
        self.program = self.prefix / "program"
        self.program.write_text("")

    def write(self, **changed):
        peers = {"stamp": install.wanted(), "node": str(self.program), "python": str(self.program),
                 "npm": str(self.prefix), "scripts": {"suite": str(self.program)}, **changed}
        (self.prefix / "peers.json").write_text(json.dumps(peers))

    def test_everything_there(self):
        self.write()
        self.assertTrue(install.complete(self.prefix))

    def test_nothing_there(self):
        self.assertFalse(install.complete(self.prefix))

    def test_half_written(self):
        (self.prefix / "peers.json").write_text("{")
        self.assertFalse(install.complete(self.prefix))

    def test_other_versions(self):
        self.write(stamp="of another lock file")
        self.assertFalse(install.complete(self.prefix))

    def test_a_program_was_removed(self):
        self.write(node=str(self.prefix / "gone"))
        self.assertFalse(install.complete(self.prefix))
        self.write(scripts={"suite": str(self.prefix / "gone")})
        self.assertFalse(install.complete(self.prefix))


class Pinned(unittest.TestCase):
    def test_every_version(self):
        manifest = json.loads((HERE / "package.json").read_text())
        lock = json.loads((HERE / "package-lock.json").read_text())
        self.assertEqual(manifest["dependencies"], lock["packages"][""]["dependencies"])
        for version in manifest["dependencies"].values():
            self.assertRegex(version.split("@")[-1], r"^\d+\.\d+\.\d+(-[a-z0-9.]+)?$")
        lines = (HERE / "requirements.txt").read_text().splitlines()
        for line in filter(None, (line.partition("#")[0] for line in lines)):
            self.assertRegex(line, r"^[a-z0-9-]+==[0-9.]+( ; .*)?$")

    def test_no_registry_is_named(self):
        lock = json.loads((HERE / "package-lock.json").read_text())
        named = [name for name, package in lock["packages"].items() if "resolved" in package]
        self.assertEqual(named, [])
        self.assertIsNone(re.search(r"://", (HERE / "requirements.txt").read_text()))


class Command(unittest.TestCase):
    def test_without_npm_it_says_what_is_missing(self):
        with tempfile.TemporaryDirectory() as directory:
            done = subprocess.run(
                [sys.executable, str(HERE / "install.py"), "--prefix", directory],
                env={"PATH": directory, "HOME": os.environ.get("HOME", directory)},
                capture_output=True, text=True, check=False)
        self.assertEqual(done.returncode, 1, done)
        self.assertIn("FAILED: no npm", done.stderr)


if __name__ == "__main__":
    unittest.main()
