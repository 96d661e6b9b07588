# Room for others: types that this project leaves empty for ever.
#
# A fork may fill and rename them as long as it keeps their ids: its logs stay readable with this
# schema, and these logs with the fork's.

@0xb526ba661d550a59;

struct CustomReserved0 @0x81c2f05a394cf4af {}
struct CustomReserved1 @0xaedffd8f31e7b55d {}
struct CustomReserved2 @0xf35cc4560bbf6ec2 {}
struct CustomReserved3 @0xda96579883444c35 {}
struct CustomReserved4 @0x80ae746ee2596b11 {}
struct CustomReserved5 @0xa5cd762cd951a455 {}
struct CustomReserved6 @0xf98d843bfd7004a3 {}
struct CustomReserved7 @0xb86e6369214c01c8 {}
struct CustomReserved8 @0xf416ec09499d9d19 {}
struct CustomReserved9 @0xa1680744031fdb2d {}
struct CustomReserved10 @0xcb9fd56c7057593a {}
struct CustomReserved11 @0xc2243c65e0340384 {}
struct CustomReserved12 @0x9ccdc8676701b412 {}
struct CustomReserved13 @0xcd96dafb67a082d0 {}
struct CustomReserved14 @0xb057204d7deadf3f {}
struct CustomReserved15 @0xbd443b539493bc68 {}
struct CustomReserved16 @0xfc6241ed8877b611 {}
struct CustomReserved17 @0xa30662f84033036c {}
struct CustomReserved18 @0xc86a3d38d13eb3ef {}
struct CustomReserved19 @0xa4f1eb3323f5f582 {}
