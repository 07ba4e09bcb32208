// Package grafana holds a dashboard for Grafana, and a test that its expressions
// are ones to Prometheus.
//
// It is a module of its own: Prometheus' parser comes with the checksums of a
// hundred modules, which nothing else here needs.
package grafana
