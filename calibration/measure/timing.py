"""How long a kernel takes on the GPU that is here: device events, L2 flushed, clocks read.

Each timed run is queued as: read more than the L2 holds (so that operands come from HBM, and
nothing dirty is left to write back), sleep on the device until the host has queued the run, event,
run, event. The sleep keeps the host's launch time out of a short kernel's time.
"""

import contextlib
import ctypes
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, cast

import numpy as np
import torch

from hwmodels.errors import MachineError
from kernels import occupy

Run = Callable[[], object]

TIME_MAX_S = 0.05  # timed device seconds of one point, unless it is sustained
SUSTAINED_S = 0.6
REPEATS_MIN = 3
HOLD_MAX_ROUNDS = 1 << 24  # ends an abandoned holder after some ten seconds of polling


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds of one run, and the state of the GPU meanwhile (None where it cannot be read).

    Attributes:
        time_s, p20_s, p80_s: median and quantiles of `repeats` runs.
        host_s: that the host took to queue one, without waiting for the device.
    """

    time_s: float
    p20_s: float
    p80_s: float
    repeats: int
    host_s: float | None = None
    sm_clock_hz: float | None = None
    power_w: float | None = None
    temperature_c: float | None = None


class Sensors:
    """Clock, power and temperature by NVML, which the driver brings; all None without it."""

    def __init__(self, uuid: str | None) -> None:
        self._device = ctypes.c_void_p()
        self._nvml: Any = None
        try:
            nvml = ctypes.CDLL("libnvidia-ml.so.1")
        except OSError:
            return
        if nvml.nvmlInit_v2() != 0:
            return
        name = f"GPU-{uuid}".encode()
        found = uuid is not None and nvml.nvmlDeviceGetHandleByUUID(
            name, ctypes.byref(self._device)
        )
        if found == 0 and uuid is not None:
            self._nvml = nvml

    def read(self) -> dict[str, float | None]:
        """Return sm_clock_hz, power_w and temperature_c as they are now."""
        clock = self._ask("nvmlDeviceGetClockInfo", 1)  # 1: the SM's
        power = self._ask("nvmlDeviceGetPowerUsage")
        temperature = self._ask("nvmlDeviceGetTemperature", 0)  # 0: the die's
        return {
            "sm_clock_hz": None if clock is None else clock * 1e6,
            "power_w": None if power is None else power / 1e3,
            "temperature_c": None if temperature is None else float(temperature),
        }

    def limits(self) -> dict[str, float | None]:
        """Return the highest SM and memory clock and the power limit; nothing is ever set."""
        sm_clock = self._ask("nvmlDeviceGetMaxClockInfo", 1)
        memory_clock = self._ask("nvmlDeviceGetMaxClockInfo", 2)  # 2: the memory's
        power = self._ask("nvmlDeviceGetEnforcedPowerLimit")
        return {
            "sm_clock_max_hz": None if sm_clock is None else sm_clock * 1e6,
            "memory_clock_max_hz": None if memory_clock is None else memory_clock * 1e6,
            "power_limit_w": None if power is None else power / 1e3,
        }

    def driver(self) -> str:
        """Return the driver's version, empty where it cannot be read."""
        if self._nvml is None:
            return ""
        text = ctypes.create_string_buffer(80)
        if self._nvml.nvmlSystemGetDriverVersion(text, 80) != 0:
            return ""
        return text.value.decode()

    def _ask(self, function: str, *arguments: int) -> int | None:
        if self._nvml is None:
            return None
        value = ctypes.c_uint()
        code = getattr(self._nvml, function)(self._device, *arguments, ctypes.byref(value))
        return value.value if code == 0 else None


class Gpu:
    """The GPU to measure on.

    Attributes:
        device, name, sms: of torch; `driver` of NVML.
    """

    def __init__(self) -> None:
        if not torch.cuda.is_available():
            raise MachineError("no GPU: PyTorch sees no CUDA device here")
        self.device = torch.device("cuda", torch.cuda.current_device())
        properties = torch.cuda.get_device_properties(self.device)
        self.name = properties.name
        self.sms = int(properties.multi_processor_count)
        uuid = getattr(properties, "uuid", None)
        self._sensors = Sensors(None if uuid is None else str(uuid))
        self.driver = self._sensors.driver()
        l2_bytes = int(getattr(properties, "L2_cache_size", 64 << 20))
        self._beyond_l2 = torch.ones(3 * l2_bytes // 4, dtype=torch.float32, device=self.device)
        self._cycles_per_s = self._sleep_rate()

    def facts(self) -> dict[str, Any]:
        """Return name, capability, SMs, memory, L2, driver, and clocks and power limit by NVML."""
        properties = torch.cuda.get_device_properties(self.device)
        return {
            "name": self.name,
            "capability": 10 * properties.major + properties.minor,
            "sms": self.sms,
            "memory_bytes": int(properties.total_memory),
            "l2_bytes": int(getattr(properties, "L2_cache_size", 0)) or None,
            "driver": self.driver,
            **self._sensors.limits(),
            **self._sensors.read(),
        }

    def warm_up(self, run: Run) -> float:
        """Compile and load all that a measurement needs; return the host's seconds for one run."""
        run()
        self._flush()
        torch.cuda._sleep(1000)
        self.finish()
        start = time.perf_counter()
        for _ in range(3):
            run()
        host_s = (time.perf_counter() - start) / 3
        self.finish()
        return host_s

    def time(
        self,
        run: Run,
        repeats: int,
        *,
        sustained: bool = False,
        after: Run | None = None,
        launches: bool = False,
    ) -> Timing:
        """Return the time of a run that was warmed up.

        Args:
            after: runs before each timed run, on an L2 that was flushed: what it leaves there is
                there.
            launches: do not hide the host: it begins when the device has nothing to do, and where
                it launches slower than the device runs, that is the time.
        """
        host_s = self.warm_up(run)
        pause_s = 0.0 if launches else 1.5 * host_s + 20e-6
        first_s, _ = self._timed(run, REPEATS_MIN, pause_s, after, drained=launches)
        once_s = float(np.median(first_s))
        if sustained:
            return self._sustained(run, once_s)
        count = max(REPEATS_MIN, min(repeats, int(TIME_MAX_S / once_s)))
        times_s, state = self._timed(run, count, pause_s, after, drained=launches)
        p20_s, median_s, p80_s = np.quantile(times_s, (0.2, 0.5, 0.8))
        return Timing(float(median_s), float(p20_s), float(p80_s), count, host_s, **state)

    def capture(self, run: Run) -> Run:
        """Return a function that plays as a CUDA graph what `run` launches.

        Whatever `run` allocates for itself is kept as long as the function is.
        """
        graph, side = torch.cuda.CUDAGraph(), torch.cuda.Stream(self.device)
        side.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.stream(side):
            run()  # loads kernels and makes workspaces, which a capture must not
            with torch.cuda.graph(graph, stream=side):
                run()
        self.finish()
        return cast("Run", graph.replay)

    @contextlib.contextmanager
    def held(self, sms: int, *, copying: bool) -> Iterator[None]:
        """Hold `sms` SMs from another stream, idle or copying.

        Nothing inside may allocate, load a kernel or wait for the whole device: it would wait for
        the holder. So what runs inside must have run before.

        Raises:
            RuntimeError: so many could not be held, or not for long enough: what was measured
                meanwhile means nothing, and the device is well.
        """
        words = (1 << 26) if copying else 0
        args = occupy.inputs({"sms": sms, "bytes": 4 * words, "rounds": 1}, self.device)
        out = torch.empty_like(args["x"])
        args["stop"].fill_(1)
        occupy.launch(**args, out=out)  # compiles and loads; ends at once
        args["stop"].zero_()
        args["started"].zero_()
        side, control = torch.cuda.Stream(self.device), torch.cuda.Stream(self.device)
        seen = torch.zeros(1, dtype=torch.int32, pin_memory=True)
        self.finish()
        with torch.cuda.stream(side):
            occupy.launch(**args | {"rounds": HOLD_MAX_ROUNDS}, out=out)
            ended = torch.cuda.Event()
            ended.record()
        try:
            self._wait_for_start(args["started"], seen, sms, control)
            yield
            if ended.query():
                raise RuntimeError("the kernel that holds SMs ended before the measurement did")
        finally:
            with torch.cuda.stream(control):
                args["stop"].fill_(1)
            side.synchronize()

    def finish(self) -> None:
        """Wait for the stream that is measured, and for no other."""
        torch.cuda.current_stream(self.device).synchronize()

    def _wait_for_start(
        self, started: torch.Tensor, seen: torch.Tensor, sms: int, control: torch.cuda.Stream
    ) -> None:
        deadline = time.monotonic() + 2.0
        while int(seen) < sms:
            if time.monotonic() > deadline:
                raise RuntimeError(f"{int(seen)} of {sms} SMs could be held within two seconds")
            with torch.cuda.stream(control):
                seen.copy_(started, non_blocking=True)
            control.synchronize()

    def _timed(
        self, run: Run, count: int, pause_s: float, after: Run | None, *, drained: bool
    ) -> tuple[list[float], dict[str, float | None]]:
        """Queue `count` timed runs, each after a pause; read the sensors while they run.

        Args:
            drained: begin each only when the device has done all before it.
        """
        pause = int(self._cycles_per_s * pause_s)
        pairs = []
        for _ in range(count):
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            self._flush()
            if after is not None:
                after()
            if pause:
                torch.cuda._sleep(pause)
            if drained:
                self.finish()
            start.record()
            run()
            end.record()
            pairs.append((start, end))
        state = self._sensors.read()
        self.finish()
        return [start.elapsed_time(end) / 1e3 for start, end in pairs], state

    def _sustained(self, run: Run, once_s: float) -> Timing:
        """Run back to back until clock and power have settled; time the second half."""
        count = max(4, int(SUSTAINED_S / once_s))
        events = [torch.cuda.Event(enable_timing=True) for _ in range(count // 2 + 1)]
        for _ in range(count - count // 2):
            run()
        events[0].record()
        for event in events[1:]:
            run()
            event.record()
        middle = len(events) // 2
        events[middle].synchronize()
        state = self._sensors.read()
        self.finish()
        times_s = [a.elapsed_time(b) / 1e3 for a, b in pairwise(events)]
        p20_s, p80_s = np.quantile(times_s, (0.2, 0.8))
        mean_s = events[0].elapsed_time(events[-1]) / 1e3 / (len(events) - 1)
        return Timing(mean_s, float(p20_s), float(p80_s), len(times_s), **state)

    def _flush(self) -> None:
        """Read more than the L2 holds. Reading leaves nothing that must be written back."""
        self._beyond_l2.amax()

    def _sleep_rate(self) -> float:
        """Return the cycles per second of the device's sleep."""
        cycles = 2_000_000
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        for _ in range(2):
            start.record()
            torch.cuda._sleep(cycles)
            end.record()
            end.synchronize()
        return cycles / float(start.elapsed_time(end) / 1e3)
