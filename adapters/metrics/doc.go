// Package metrics shows what a relay does in the format of Prometheus.
//
// The relay tells a Meter in groups, which adds to counters in memory. What only
// the database knows is looked up when somebody asks, some seconds apart at the
// most, by statements whose cost does not grow with history.
//
// No label names an account, a webhook or a URL: there is one series for each
// value of a short list, whatever passes through. Who wants to know about one
// webhook asks the schema audit.
package metrics
