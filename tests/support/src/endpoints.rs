//! The addresses of a pod and of its surroundings, the endpoints that tests connect to, and
//! the answers that say where a connection landed: `NAME@PORT from PEER`.

/// The pod's own address.
pub const POD: &str = "10.1.0.2";
/// The pod's own IPv6 address.
pub const POD6: &str = "fd00:1::2";
/// The server's address on the pod's own network.
pub const NEAR: &str = "10.1.0.1";
/// The server's IPv6 address on the pod's own network.
pub const NEAR6: &str = "fd00:1::1";
/// The server's address on another network.
pub const FAR: &str = "10.2.0.1";
/// The server's IPv6 address on another network.
pub const FAR6: &str = "fd00:2::1";

/// RTSP on the server, which is on another network.
pub const RTSP: &str = "10.2.0.1:554";
pub const RTSP6: &str = "[fd00:2::1]:554";
/// The same from an IPv6 socket that connects to an IPv4 address.
pub const RTSP_MAPPED: &str = "[::ffff:10.2.0.1]:554";
/// RTSP on another port than the default.
pub const RTSP_ALT: &str = "10.2.0.1:1554";
/// RTSP on the server, by its address on the pod's own network.
pub const RTSP_NEAR: &str = "10.1.0.1:554";
/// RTSP of the application, by the loopback interface.
pub const RTSP_LOCAL: &str = "127.0.0.1:554";
pub const RTSP_LOCAL6: &str = "[::1]:554";
/// RTSP of the application, by the pod's own address.
pub const RTSP_POD: &str = "10.1.0.2:554";
pub const RTSP_POD6: &str = "[fd00:1::2]:554";
/// A port that is never redirected.
pub const HTTP: &str = "10.2.0.1:80";
pub const HTTP6: &str = "[fd00:2::1]:80";

/// The stub, reached from inside of the pod: the connection was redirected.
pub const STUB: &str = "stub@8554 from 10.1.0.2";
pub const STUB6: &str = "stub@8554 from fd00:1::2";
/// The stub's other port.
pub const STUB_ALT: &str = "stub@9554 from 10.1.0.2";
/// The server, reached from inside of the pod: the connection was not redirected.
pub const SERVER: &str = "server@554 from 10.1.0.2";
pub const SERVER6: &str = "server@554 from fd00:1::2";
/// The server's other RTSP port.
pub const SERVER_ALT: &str = "server@1554 from 10.1.0.2";
pub const HTTP_SERVER: &str = "server@80 from 10.1.0.2";
pub const HTTP_SERVER6: &str = "server@80 from fd00:1::2";
/// The application, reached by the loopback interface.
pub const APP: &str = "app@554 from 127.0.0.1";
pub const APP6: &str = "app@554 from ::1";
/// The server that another redirect leads to.
pub const RIVAL: &str = "rival@9999 from 10.1.0.2";

/// The application, reached from outside of the pod.
pub const APP_FROM_OUTSIDE: &str = "app@554 from 10.1.0.1";
pub const APP6_FROM_OUTSIDE: &str = "app@554 from fd00:1::1";
/// The stub, reached from outside of the pod.
pub const STUB_FROM_OUTSIDE: &str = "stub@8554 from 10.1.0.1";
pub const STUB6_FROM_OUTSIDE: &str = "stub@8554 from fd00:1::1";
/// The stub's other port.
pub const STUB_ALT_FROM_OUTSIDE: &str = "stub@9554 from 10.1.0.1";
