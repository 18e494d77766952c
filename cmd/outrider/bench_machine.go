package main

import (
	"runtime"

	"github.com/outrider-relay/outrider/adapters/bench"
)

// benchMachine describes where it runs.
func benchMachine() bench.Machine {
	return bench.Machine{
		OS: runtime.GOOS, Arch: runtime.GOARCH, CPU: machineCPU(), Cores: runtime.NumCPU(), GOMAXPROCS: runtime.GOMAXPROCS(0), Memory: machineMemory(),
	}
}
