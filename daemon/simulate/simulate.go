// Package simulate runs a trace of requests on a simulated machine, in no
// time: with the daemon's own tiers, routing, queue and residency, or with a
// simpler policy to compare them with, and measures either against the least
// energy that would have done.
//
// Nothing of what decides is written here twice: the daemon's rules are driven
// with the events and the clock of the simulation.
package simulate
