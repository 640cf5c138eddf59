"""Every Mews voucher code in pandas: read completely, judged exactly, changed safely."""
