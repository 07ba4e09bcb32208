// Package bus is the only place that opens a bus, and knows what godbus needs
// help with on both sides of one.
//
// As a client it connects, keeps descriptors from leaking, and mirrors the
// properties of services that come and go (Monitor). As a server it answers
// calls on objects whose number changes, with the errors and the property
// signals that the specification asks for. Which services are watched and
// which objects are served is for the packages around it to say: upower,
// profiles and dbus itself.
package bus
