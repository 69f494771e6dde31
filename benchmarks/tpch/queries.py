"""The 22 queries of TPC-H in the words of pandas.

Each gets the tables by name and the module of frames (``pandas``, ``mars.dataframe`` or
``dask.dataframe``), and returns a frame, the columns to sort it by, whether each ascends, and how
many rows are wanted. All use what the three have in common, so none is tuned for one of them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, NamedTuple

import pandas as pd

Tables = Any
day = pd.Timestamp


class Answer(NamedTuple):
    """What a query asks for."""

    frame: Any
    by: list[str]
    ascending: list[bool] | bool = True
    limit: int | None = None


def q1(t: Tables, m: Any) -> Answer:
    line = t.lineitem[t.lineitem.l_shipdate <= day("1998-09-02")]
    price = line.l_extendedprice * (1 - line.l_discount)
    line = line.assign(disc_price=price, charge=price * (1 + line.l_tax))
    made = line.groupby(["l_returnflag", "l_linestatus"]).agg(
        sum_qty=("l_quantity", "sum"), sum_base_price=("l_extendedprice", "sum"),
        sum_disc_price=("disc_price", "sum"), sum_charge=("charge", "sum"),
        avg_qty=("l_quantity", "mean"), avg_price=("l_extendedprice", "mean"),
        avg_disc=("l_discount", "mean"), count_order=("l_orderkey", "count"),
    )  # fmt: skip
    return Answer(made.reset_index(), ["l_returnflag", "l_linestatus"])


def q2(t: Tables, m: Any) -> Answer:
    europe = t.region[t.region.r_name == "EUROPE"].merge(
        t.nation, left_on="r_regionkey", right_on="n_regionkey"
    )
    suppliers = t.supplier.merge(europe, left_on="s_nationkey", right_on="n_nationkey")
    offers = t.partsupp.merge(suppliers, left_on="ps_suppkey", right_on="s_suppkey")
    part = t.part[(t.part.p_size == 15) & t.part.p_type.str.endswith("BRASS")]
    offers = offers.merge(part[["p_partkey", "p_mfgr"]], left_on="ps_partkey", right_on="p_partkey")
    least = offers.groupby("p_partkey").agg(least=("ps_supplycost", "min")).reset_index()
    made = offers.merge(least, on="p_partkey")
    made = made[made.ps_supplycost == made.least]
    columns = [
        "s_acctbal", "s_name", "n_name", "p_partkey", "p_mfgr", "s_address", "s_phone", "s_comment",
    ]  # fmt: skip
    by = ["s_acctbal", "n_name", "s_name", "p_partkey"]
    return Answer(made[columns], by, [False, True, True, True], 100)


def q3(t: Tables, m: Any) -> Answer:
    customer = t.customer[t.customer.c_mktsegment == "BUILDING"][["c_custkey"]]
    orders = t.orders[t.orders.o_orderdate < day("1995-03-15")]
    line = t.lineitem[t.lineitem.l_shipdate > day("1995-03-15")]
    orders = orders.merge(customer, left_on="o_custkey", right_on="c_custkey")
    made = line.merge(orders, left_on="l_orderkey", right_on="o_orderkey")
    made = made.assign(revenue=made.l_extendedprice * (1 - made.l_discount))
    made = made.groupby(["l_orderkey", "o_orderdate", "o_shippriority"]).agg(
        revenue=("revenue", "sum")
    )
    return Answer(made.reset_index(), ["revenue", "o_orderdate"], [False, True], 10)


def q4(t: Tables, m: Any) -> Answer:
    line = t.lineitem[t.lineitem.l_commitdate < t.lineitem.l_receiptdate]
    late = line[["l_orderkey"]].drop_duplicates()
    when = t.orders.o_orderdate
    orders = t.orders[(when >= day("1993-07-01")) & (when < day("1993-10-01"))]
    made = orders.merge(late, left_on="o_orderkey", right_on="l_orderkey")
    made = made.groupby("o_orderpriority").agg(order_count=("o_orderkey", "count"))
    return Answer(made.reset_index(), ["o_orderpriority"])


def q5(t: Tables, m: Any) -> Answer:
    asia = t.region[t.region.r_name == "ASIA"].merge(
        t.nation, left_on="r_regionkey", right_on="n_regionkey"
    )
    when = t.orders.o_orderdate
    orders = t.orders[(when >= day("1994-01-01")) & (when < day("1995-01-01"))]
    supplier = t.supplier.merge(asia, left_on="s_nationkey", right_on="n_nationkey")
    customer = t.customer[["c_custkey", "c_nationkey"]]
    orders = orders.merge(customer, left_on="o_custkey", right_on="c_custkey")
    made = t.lineitem.merge(orders, left_on="l_orderkey", right_on="o_orderkey")
    made = made.merge(
        supplier, left_on=["l_suppkey", "c_nationkey"], right_on=["s_suppkey", "s_nationkey"]
    )
    made = made.assign(revenue=made.l_extendedprice * (1 - made.l_discount))
    made = made.groupby("n_name").agg(revenue=("revenue", "sum"))
    return Answer(made.reset_index(), ["revenue"], False)


def q6(t: Tables, m: Any) -> Answer:
    line = t.lineitem
    line = line[
        (line.l_shipdate >= day("1994-01-01")) & (line.l_shipdate < day("1995-01-01"))
        & (line.l_discount >= 0.05 - 1e-9) & (line.l_discount <= 0.07 + 1e-9)
        & (line.l_quantity < 24)
    ]  # fmt: skip
    return Answer((line.l_extendedprice * line.l_discount).sum(), [])


def q7(t: Tables, m: Any) -> Answer:
    nation = t.nation[t.nation.n_name.isin(["FRANCE", "GERMANY"])][["n_nationkey", "n_name"]]
    supplier = t.supplier.merge(nation, left_on="s_nationkey", right_on="n_nationkey")
    customer = t.customer.merge(nation, left_on="c_nationkey", right_on="n_nationkey")
    supplier = supplier.rename(columns={"n_name": "supp_nation"})[["s_suppkey", "supp_nation"]]
    customer = customer.rename(columns={"n_name": "cust_nation"})[["c_custkey", "cust_nation"]]
    when = t.lineitem.l_shipdate
    line = t.lineitem[(when >= day("1995-01-01")) & (when <= day("1996-12-31"))]
    line = line.merge(supplier, left_on="l_suppkey", right_on="s_suppkey")
    orders = t.orders[["o_orderkey", "o_custkey"]].merge(
        customer, left_on="o_custkey", right_on="c_custkey"
    )
    made = line.merge(orders, left_on="l_orderkey", right_on="o_orderkey")
    made = made[made.supp_nation != made.cust_nation]
    made = made.assign(
        l_year=made.l_shipdate.dt.year, volume=made.l_extendedprice * (1 - made.l_discount)
    )
    by = ["supp_nation", "cust_nation", "l_year"]
    return Answer(made.groupby(by).agg(revenue=("volume", "sum")).reset_index(), by)


def q8(t: Tables, m: Any) -> Answer:
    part = t.part[t.part.p_type == "ECONOMY ANODIZED STEEL"][["p_partkey"]]
    line = t.lineitem.merge(part, left_on="l_partkey", right_on="p_partkey")
    line = line.merge(t.supplier, left_on="l_suppkey", right_on="s_suppkey")
    when = t.orders.o_orderdate
    orders = t.orders[(when >= day("1995-01-01")) & (when <= day("1996-12-31"))]
    line = line.merge(orders, left_on="l_orderkey", right_on="o_orderkey")
    america = t.region[t.region.r_name == "AMERICA"].merge(
        t.nation, left_on="r_regionkey", right_on="n_regionkey"
    )[["n_nationkey"]]
    customer = t.customer.merge(america, left_on="c_nationkey", right_on="n_nationkey")
    line = line.merge(customer[["c_custkey"]], left_on="o_custkey", right_on="c_custkey")
    nation = t.nation[["n_nationkey", "n_name"]]
    line = line.merge(nation, left_on="s_nationkey", right_on="n_nationkey")
    volume = line.l_extendedprice * (1 - line.l_discount)
    line = line.assign(
        o_year=line.o_orderdate.dt.year, volume=volume,
        brazil=volume.where(line.n_name == "BRAZIL", 0.0),
    )  # fmt: skip
    made = line.groupby("o_year").agg(volume=("volume", "sum"), brazil=("brazil", "sum"))
    made = made.reset_index()
    made = made.assign(mkt_share=made.brazil / made.volume)
    return Answer(made[["o_year", "mkt_share"]], ["o_year"])


def q9(t: Tables, m: Any) -> Answer:
    part = t.part[t.part.p_name.str.contains("green", regex=False)][["p_partkey"]]
    line = t.lineitem.merge(part, left_on="l_partkey", right_on="p_partkey")
    offers = t.partsupp[["ps_partkey", "ps_suppkey", "ps_supplycost"]]
    line = line.merge(
        offers, left_on=["l_partkey", "l_suppkey"], right_on=["ps_partkey", "ps_suppkey"]
    )
    supplier = t.supplier.merge(t.nation, left_on="s_nationkey", right_on="n_nationkey")
    line = line.merge(supplier[["s_suppkey", "n_name"]], left_on="l_suppkey", right_on="s_suppkey")
    orders = t.orders[["o_orderkey", "o_orderdate"]]
    line = line.merge(orders, left_on="l_orderkey", right_on="o_orderkey")
    line = line.assign(
        o_year=line.o_orderdate.dt.year,
        amount=line.l_extendedprice * (1 - line.l_discount) - line.ps_supplycost * line.l_quantity,
    )
    made = line.groupby(["n_name", "o_year"]).agg(sum_profit=("amount", "sum")).reset_index()
    return Answer(made, ["n_name", "o_year"], [True, False])


def q10(t: Tables, m: Any) -> Answer:
    when = t.orders.o_orderdate
    orders = t.orders[(when >= day("1993-10-01")) & (when < day("1994-01-01"))]
    line = t.lineitem[t.lineitem.l_returnflag == "R"]
    made = line.merge(
        orders[["o_orderkey", "o_custkey"]], left_on="l_orderkey", right_on="o_orderkey"
    )
    made = made.assign(revenue=made.l_extendedprice * (1 - made.l_discount))
    made = made.groupby("o_custkey").agg(revenue=("revenue", "sum")).reset_index()
    customer = t.customer.merge(
        t.nation[["n_nationkey", "n_name"]], left_on="c_nationkey", right_on="n_nationkey"
    )
    made = customer.merge(made, left_on="c_custkey", right_on="o_custkey")
    columns = [
        "c_custkey", "c_name", "revenue", "c_acctbal", "n_name", "c_address", "c_phone",
        "c_comment",
    ]  # fmt: skip
    return Answer(made[columns], ["revenue"], False, 20)


def q11(t: Tables, m: Any) -> Answer:
    germany = t.nation[t.nation.n_name == "GERMANY"][["n_nationkey"]]
    supplier = t.supplier.merge(germany, left_on="s_nationkey", right_on="n_nationkey")
    offers = t.partsupp.merge(supplier[["s_suppkey"]], left_on="ps_suppkey", right_on="s_suppkey")
    offers = offers.assign(value=offers.ps_supplycost * offers.ps_availqty)
    made = offers.groupby("ps_partkey").agg(value=("value", "sum")).reset_index()
    least = offers.value.sum() * (0.0001 / t.scale)
    return Answer(made[made.value > least], ["value"], False)


def q12(t: Tables, m: Any) -> Answer:
    line = t.lineitem
    line = line[
        line.l_shipmode.isin(["MAIL", "SHIP"]) & (line.l_commitdate < line.l_receiptdate)
        & (line.l_shipdate < line.l_commitdate) & (line.l_receiptdate >= day("1994-01-01"))
        & (line.l_receiptdate < day("1995-01-01"))
    ]  # fmt: skip
    made = line[["l_orderkey", "l_shipmode"]].merge(
        t.orders[["o_orderkey", "o_orderpriority"]], left_on="l_orderkey", right_on="o_orderkey"
    )
    high = made.o_orderpriority.isin(["1-URGENT", "2-HIGH"]).astype("int64")
    made = made.assign(high_line_count=high, low_line_count=1 - high)
    made = made.groupby("l_shipmode").agg(
        high_line_count=("high_line_count", "sum"), low_line_count=("low_line_count", "sum")
    )
    return Answer(made.reset_index(), ["l_shipmode"])


def q13(t: Tables, m: Any) -> Answer:
    orders = t.orders[~t.orders.o_comment.str.contains("special.*requests")]
    counted = orders.groupby("o_custkey").agg(c_count=("o_orderkey", "count")).reset_index()
    made = t.customer[["c_custkey"]].merge(
        counted, left_on="c_custkey", right_on="o_custkey", how="left"
    )
    made = made.assign(c_count=made.c_count.fillna(0).astype("int64"))
    made = made.groupby("c_count").agg(custdist=("c_custkey", "count")).reset_index()
    return Answer(made, ["custdist", "c_count"], [False, False])


def q14(t: Tables, m: Any) -> Answer:
    when = t.lineitem.l_shipdate
    line = t.lineitem[(when >= day("1995-09-01")) & (when < day("1995-10-01"))]
    line = line.merge(t.part[["p_partkey", "p_type"]], left_on="l_partkey", right_on="p_partkey")
    revenue = line.l_extendedprice * (1 - line.l_discount)
    promo = revenue.where(line.p_type.str.startswith("PROMO"), 0.0)
    return Answer(100.0 * promo.sum() / revenue.sum(), [])


def q15(t: Tables, m: Any) -> Answer:
    when = t.lineitem.l_shipdate
    line = t.lineitem[(when >= day("1996-01-01")) & (when < day("1996-04-01"))]
    line = line.assign(revenue=line.l_extendedprice * (1 - line.l_discount))
    made = line.groupby("l_suppkey").agg(total_revenue=("revenue", "sum")).reset_index()
    most = made.total_revenue.max()
    made = made[made.total_revenue >= most * (1 - 1e-12)]  # sums in another order differ a little
    made = t.supplier.merge(made, left_on="s_suppkey", right_on="l_suppkey")
    columns = ["s_suppkey", "s_name", "s_address", "s_phone", "total_revenue"]
    return Answer(made[columns], ["s_suppkey"])


def q16(t: Tables, m: Any) -> Answer:
    part = t.part[
        (t.part.p_brand != "Brand#45") & ~t.part.p_type.str.startswith("MEDIUM POLISHED")
        & t.part.p_size.isin([49, 14, 23, 45, 19, 3, 36, 9])
    ]  # fmt: skip
    bad = t.supplier[t.supplier.s_comment.str.contains("Customer.*Complaints")]
    bad = bad[["s_suppkey"]].assign(bad=1)
    made = t.partsupp[["ps_partkey", "ps_suppkey"]].merge(
        part[["p_partkey", "p_brand", "p_type", "p_size"]],
        left_on="ps_partkey", right_on="p_partkey",
    )  # fmt: skip
    made = made.merge(bad, left_on="ps_suppkey", right_on="s_suppkey", how="left")
    made = made[made.bad.isna()]
    keys = ["p_brand", "p_type", "p_size"]
    made = made[[*keys, "ps_suppkey"]].drop_duplicates()
    made = made.groupby(keys).agg(supplier_cnt=("ps_suppkey", "count")).reset_index()
    return Answer(made, ["supplier_cnt", *keys], [False, True, True, True])


def q17(t: Tables, m: Any) -> Answer:
    part = t.part[(t.part.p_brand == "Brand#23") & (t.part.p_container == "MED BOX")]
    line = t.lineitem[["l_partkey", "l_quantity", "l_extendedprice"]].merge(
        part[["p_partkey"]], left_on="l_partkey", right_on="p_partkey"
    )
    mean = line.groupby("l_partkey").agg(mean=("l_quantity", "mean")).reset_index()
    made = line.merge(mean, on="l_partkey")
    made = made[made.l_quantity < 0.2 * made["mean"]]
    return Answer(made.l_extendedprice.sum() / 7.0, [])


def q18(t: Tables, m: Any) -> Answer:
    large = t.lineitem.groupby("l_orderkey").agg(quantity=("l_quantity", "sum")).reset_index()
    large = large[large.quantity > 300]
    orders = t.orders[["o_orderkey", "o_custkey", "o_orderdate", "o_totalprice"]]
    made = orders.merge(large, left_on="o_orderkey", right_on="l_orderkey")
    made = made.merge(
        t.customer[["c_custkey", "c_name"]], left_on="o_custkey", right_on="c_custkey"
    )
    columns = ["c_name", "c_custkey", "o_orderkey", "o_orderdate", "o_totalprice", "quantity"]
    return Answer(made[columns], ["o_totalprice", "o_orderdate"], [False, True], 100)


def q19(t: Tables, m: Any) -> Answer:
    line = t.lineitem[
        t.lineitem.l_shipmode.isin(["AIR", "AIR REG"])
        & (t.lineitem.l_shipinstruct == "DELIVER IN PERSON")
    ]
    line = line[["l_partkey", "l_quantity", "l_extendedprice", "l_discount"]].merge(
        t.part[["p_partkey", "p_brand", "p_container", "p_size"]],
        left_on="l_partkey", right_on="p_partkey",
    )  # fmt: skip

    def wanted(brand: str, kind: str, kinds: list[str], least: int, size: int) -> Any:
        return (
            (line.p_brand == brand) & line.p_container.isin([f"{kind} {one}" for one in kinds])
            & (line.l_quantity >= least) & (line.l_quantity <= least + 10)
            & (line.p_size >= 1) & (line.p_size <= size)
        )  # fmt: skip

    line = line[
        wanted("Brand#12", "SM", ["CASE", "BOX", "PACK", "PKG"], 1, 5)
        | wanted("Brand#23", "MED", ["BAG", "BOX", "PKG", "PACK"], 10, 10)
        | wanted("Brand#34", "LG", ["CASE", "BOX", "PACK", "PKG"], 20, 15)
    ]
    return Answer((line.l_extendedprice * (1 - line.l_discount)).sum(), [])


def q20(t: Tables, m: Any) -> Answer:
    when = t.lineitem.l_shipdate
    line = t.lineitem[(when >= day("1994-01-01")) & (when < day("1995-01-01"))]
    shipped = line.groupby(["l_partkey", "l_suppkey"]).agg(shipped=("l_quantity", "sum"))
    part = t.part[t.part.p_name.str.startswith("forest")][["p_partkey"]]
    offers = t.partsupp[["ps_partkey", "ps_suppkey", "ps_availqty"]].merge(
        part, left_on="ps_partkey", right_on="p_partkey"
    )
    offers = offers.merge(
        shipped.reset_index(), left_on=["ps_partkey", "ps_suppkey"],
        right_on=["l_partkey", "l_suppkey"],
    )  # fmt: skip
    offers = offers[offers.ps_availqty > 0.5 * offers.shipped]
    canada = t.nation[t.nation.n_name == "CANADA"][["n_nationkey"]]
    supplier = t.supplier.merge(canada, left_on="s_nationkey", right_on="n_nationkey")
    chosen = offers[["ps_suppkey"]].drop_duplicates()
    made = supplier.merge(chosen, left_on="s_suppkey", right_on="ps_suppkey")
    return Answer(made[["s_name", "s_address"]], ["s_name"])


def q21(t: Tables, m: Any) -> Answer:
    line = t.lineitem[["l_orderkey", "l_suppkey", "l_commitdate", "l_receiptdate"]]
    each = line[["l_orderkey", "l_suppkey"]].drop_duplicates()
    several = each.groupby("l_orderkey").agg(suppliers=("l_suppkey", "count")).reset_index()
    late = line[line.l_receiptdate > line.l_commitdate][["l_orderkey", "l_suppkey"]]
    alone = late.drop_duplicates().groupby("l_orderkey").agg(late=("l_suppkey", "count"))
    alone = alone.reset_index()
    saudi = t.nation[t.nation.n_name == "SAUDI ARABIA"][["n_nationkey"]]
    supplier = t.supplier[["s_suppkey", "s_name", "s_nationkey"]].merge(
        saudi, left_on="s_nationkey", right_on="n_nationkey"
    )
    orders = t.orders[t.orders.o_orderstatus == "F"][["o_orderkey"]]
    made = late.merge(supplier, left_on="l_suppkey", right_on="s_suppkey")
    made = made.merge(orders, left_on="l_orderkey", right_on="o_orderkey")
    made = made.merge(several[several.suppliers > 1], on="l_orderkey")
    made = made.merge(alone[alone.late == 1], on="l_orderkey")
    made = made.groupby("s_name").agg(numwait=("l_orderkey", "count")).reset_index()
    return Answer(made, ["numwait", "s_name"], [False, True], 100)


def q22(t: Tables, m: Any) -> Answer:
    customer = t.customer.assign(cntrycode=t.customer.c_phone.str.slice(0, 2))
    codes = ["13", "31", "23", "29", "30", "18", "17"]
    customer = customer[customer.cntrycode.isin(codes)]
    mean = customer[customer.c_acctbal > 0].c_acctbal.mean()
    customer = customer[customer.c_acctbal > mean][["c_custkey", "cntrycode", "c_acctbal"]]
    buyers = t.orders[["o_custkey"]].drop_duplicates()
    made = customer.merge(buyers, left_on="c_custkey", right_on="o_custkey", how="left")
    made = made[made.o_custkey.isna()]
    made = made.groupby("cntrycode").agg(
        numcust=("c_custkey", "count"), totacctbal=("c_acctbal", "sum")
    )
    return Answer(made.reset_index(), ["cntrycode"])


QUERIES: Final[dict[int, Callable[[Tables, Any], Answer]]] = {
    number: globals()[f"q{number}"] for number in range(1, 23)
}

__all__ = ["QUERIES", "Answer"]
