//go:build !linux

package main

// peakMemory is not known while the process runs.
func peakMemory(int) int64 { return 0 }

// machineMemory is not known.
func machineMemory() int64 { return 0 }

// machineCPU is not known.
func machineCPU() string { return "" }
