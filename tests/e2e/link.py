"""A TCP link that can be made bad: cut, slow, narrow, silent. A process of its own, so that the sender's
threads don't slow it; told what to be by lines on its standard input.

    pass | cut | hole | latency MILLISECONDS | rate BYTES_A_SECOND

cut: connections break, new ones are refused. hole: connections stay, new ones are taken, no byte passes.
Usage: link.py LISTEN_PORT TARGET_PORT
"""
import asyncio
import subprocess
import sys


class Link:
    """The suite's end of the process."""

    def __init__(self, port, target):
        self.port = port
        self._process = subprocess.Popen([sys.executable, __file__, str(port), str(target)], stdin=subprocess.PIPE,
                                         stdout=subprocess.PIPE, text=True, start_new_session=True)
        self._wait()

    def _wait(self):
        assert self._process.stdout.readline() == "done\n", "the link ended"

    def be(self, *words):
        self._process.stdin.write(" ".join(map(str, words)) + "\n")
        self._process.stdin.flush()
        self._wait()

    def close(self):
        self._process.stdin.close()
        self._process.wait(10)


class Server:
    def __init__(self, port, target):
        self.port, self.target = port, target
        self.latency, self.rate = 0.0, 0
        self.open = asyncio.Event()  # clear: a hole
        self.open.set()
        self.server, self.writers = None, set()

    async def listen(self):
        if self.server is None:
            self.server = await asyncio.start_server(self.serve, "127.0.0.1", self.port, reuse_address=True)

    async def become(self, words):
        self.latency = float(words[1]) / 1000 if words[0] == "latency" else 0.0
        self.rate = int(words[1]) if words[0] == "rate" else 0
        if words[0] == "hole":
            self.open.clear()
        else:
            self.open.set()
        if words[0] != "cut":
            await self.listen()
            return
        server, self.server = self.server, None
        if server is not None:
            server.close()
        for writer in list(self.writers):
            writer.transport.abort()

    async def serve(self, reader, writer):
        self.writers.add(writer)
        other = None
        try:
            await self.open.wait()
            other_reader, other = await asyncio.open_connection("127.0.0.1", self.target)
            self.writers.add(other)
            await asyncio.gather(self.pump(reader, other), self.pump(other_reader, writer))
        except OSError:
            pass
        finally:
            for end in (writer, other):
                if end is not None:
                    self.writers.discard(end)
                    end.transport.abort()

    async def pump(self, reader, writer):
        """Bytes arrive `latency` later, in order; several may be on the way at once."""
        loop, queue = asyncio.get_running_loop(), asyncio.Queue()

        async def deliver():
            while True:
                due, data = await queue.get()
                await asyncio.sleep(max(0, due - loop.time()))
                await self.open.wait()
                if not data:
                    if writer.can_write_eof():
                        writer.write_eof()
                    return
                writer.write(data)
                await writer.drain()
                if self.rate:
                    await asyncio.sleep(len(data) / self.rate)

        task = asyncio.create_task(deliver())
        try:
            while True:
                data = await reader.read(4096 if self.rate else 65536)
                queue.put_nowait((loop.time() + self.latency, data))
                if not data:
                    break
                while queue.qsize() > 64:
                    await asyncio.sleep(0.001)
            await task
        finally:
            task.cancel()


async def main():
    server = Server(int(sys.argv[1]), int(sys.argv[2]))
    await server.listen()
    loop = asyncio.get_running_loop()
    print("done", flush=True)
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        await server.become(line.split())
        print("done", flush=True)


if __name__ == "__main__":
    try:
        asyncio.run(main())
    except KeyboardInterrupt:
        pass
